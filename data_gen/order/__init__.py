"""An order of pairs: its options and inputs, what it will cost, and the stages run one after another."""
