"""What people may say, and what the tables can hold: the rules that history keeps and the BFF asks beforehand."""
