"""Drive a checkpoint of ours from the harnesses of others; each is imported only when it asks."""
