"""Code that runs in RLinf's interpreter. The processes of this project's interpreter do not import it."""
