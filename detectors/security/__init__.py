"""Security classes: what hosts do to others, found in the views of `correlator.security_views`."""
