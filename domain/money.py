"""Money: integers in minor units, and the units there are.

Source: ISO 4217 (active codes and their true exponents, as amended to 2025); crypto-currencies with at most 8 decimals,
those that have more on their chain (ETH, SOL) cut to 8.
"""

from __future__ import annotations

AMOUNT_MAX = 2**63 - 1
"""The largest amount and the largest balance, in minor units; the smallest balance is its negative."""

_ISO_4217 = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF"
        " CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG"
        " HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR"
        " MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD"
        " SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD"
        " XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_CRYPTO = {
    6: "ADA ALGO EURC PYUSD TRX USDC USDT XRP",
    7: "XLM",
    8: "AVAX BCH BNB BTC DAI DOGE DOT ETH LINK LTC SOL UNI",
}

EXPONENTS: dict[str, int] = {
    code: exponent for table in (_ISO_4217, _CRYPTO) for exponent, codes in table.items() for code in codes.split()
}
"""Every built-in unit and how many decimals its minor unit has."""


def exponent(currency: str) -> int | None:
    """How many decimals a unit has; None if it is not a built-in one."""
    return EXPONENTS.get(currency)


def in_major_units(amount_minor: int, currency: str) -> str:
    """An amount for a person to read: `12.34 EUR`, `-500 JPY`. Unknown units are shown in minor units."""
    decimals = EXPONENTS.get(currency, 0)
    if decimals == 0:
        return f"{amount_minor:,} {currency}"
    whole, rest = divmod(abs(amount_minor), 10**decimals)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{whole:,}.{rest:0{decimals}d} {currency}"
