"""`python -m pie_trio` is the command line. It owns nothing and never runs when imported."""

from pie_trio.cli.main import run

if __name__ == "__main__":
    run()
