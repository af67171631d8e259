"""From a change to its sinks: who is told, and what is kept until it was taken."""
