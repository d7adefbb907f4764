"""One cache: what was computed once is named by everything that decides it, and found again."""
