"""Many processes that minimise one sum together, each with rows of its own.

`Processes` is a group of `torch.distributed` as the rest of the package sees it: what each process
does by itself, what is added over all of them, and what happens when one of them fails.
"""
