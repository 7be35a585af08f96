"""Floor 0: what every other room leans on. Take each helper from the file that holds it."""
