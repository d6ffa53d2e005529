"""What operators run: the command line, the supervisor, model installation."""
