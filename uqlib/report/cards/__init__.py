"""Reliability cards: what every short paper says of its method before and after, so that all of them can be compared."""

from uqlib.report.cards.reliability import CARD, Carded, card_of, record_card, reliability_card, show_card

__all__ = ["CARD", "Carded", "card_of", "record_card", "reliability_card", "show_card"]
