"""The book's names on our code: change a script's imports to `scratchlm.book.ch02` and so on, and it runs.

There is a module for each chapter, because one name may mean two things: `calc_loss_batch` is about the next
token in chapter 5 and about a class in chapter 6. Names, signatures, printed lines and the use of torch's
global random numbers are the book's ("Build a Large Language Model (From Scratch)"); where its code is wrong
ours works, and the docstring says what differs.
"""
