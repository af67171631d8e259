"""Records to frames (windows), then joins with what is known of the network."""
