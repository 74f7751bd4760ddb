"""Signing keys of a deployment: one for every issuer that has none, or one more for some issuer.

KEYS_DIR=/keys python -m deploy.container.make_keys [--add ISSUER]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.keyring import add_key, ensure_keys

ISSUERS = ("auth", "catalog", "inventory", "order", "gateway")


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing or asked for and say which; a key that exists is never touched."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--add", choices=ISSUERS, metavar="ISSUER", help="a further key for it")
    options = parser.parse_args(argv)
    folder = Path(os.environ["KEYS_DIR"])
    made = ensure_keys(folder, ISSUERS)
    if options.add and options.add not in made:
        add_key(folder, options.add)
        made.append(options.add)
    sys.stdout.write(f"new keys: {', '.join(made) or 'none needed'}\n")


if __name__ == "__main__":
    main()
