"""Companion to "Fairness and Robustness in Machine Unlearning" (Tran & Woo, 2025)."""

__version__ = "0.1.0"
