"""`python -m tinyformer`, the same as `tinyformer`."""

from .cli import main

if __name__ == "__main__":
    main()
