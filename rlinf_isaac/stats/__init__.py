"""Success rates with intervals, paired tests, and sequential tests. Functions of plain numbers, without files."""
