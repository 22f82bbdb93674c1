"""How the words of a command line are read: arguments, flags and help, by argparse."""
