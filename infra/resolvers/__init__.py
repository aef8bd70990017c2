"""Which expense categories a card payment is of, and which lines of credit pay for it: by rules, or by custom code."""
