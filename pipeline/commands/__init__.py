"""The command line: arguments and help of every command, and the commands that run no stage."""
