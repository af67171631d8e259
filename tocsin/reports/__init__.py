"""What a verb works out for people from the history, alarm files or the network map: values in, values out."""
