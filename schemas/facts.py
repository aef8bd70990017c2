"""What every money fact may carry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.fields import AccountName, Description, Id, Maybe, Metadata, Wire


class MoneyFact(Wire):
    """Something that has happened outside: it may be described, and say who reported it."""

    description: Maybe[Description] = None
    metadata: Maybe[Metadata] = None
    provider: Annotated[
        Maybe[Id], Field(description="Who gave the ids; part of the natural key, so two providers may share an id.")
    ] = None


class CashFact(MoneyFact):
    """A money fact that touches cash."""

    cash_account: Annotated[
        AccountName,
        Field(
            description="The asset account of the money itself. What follows another event, or names a payment, "
            "uses the account of what it follows."
        ),
    ] = "platform:cash"
