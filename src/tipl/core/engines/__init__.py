"""Where the independent pieces of something long are run: here in threads, or on other machines.

A piece puts whole files into a directory that all machines share, under fixed names and with the
same bytes wherever it runs, again if need be. So the directory is the queue: what is done is what
lies there, and whoever looks after the pieces may die at any moment.
"""
