"""What is said: alerts as sinks get them, numbers and texts made fit, templates, pictures."""
