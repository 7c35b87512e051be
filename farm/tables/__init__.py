"""Tables: the columns of records, and the files that are read and written."""
