"""The book's names for this package's code: a script runs with its imports changed to `scratchlm.book.ch02` etc.

Each chapter has its module, because one name may have two meanings: `calc_loss_batch` concerns the next token in
chapter 5 and a class in chapter 6. Names, signatures, printed lines and the use of torch's global random generator are
those of "Build a Large Language Model (From Scratch)". Where the book's code fails and ours does not, the docstring
says so.
"""
