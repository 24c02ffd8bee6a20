"""Commands on the store: what it holds and cost (``ledger``), export, import and the article's file (``transfer``)."""
