"""What the README claims about speed, runnable. Each file measures one thing and prints a table."""
