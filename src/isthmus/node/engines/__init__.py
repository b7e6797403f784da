"""The kinds of settlement engines that a configuration can name: each declares its options and makes its engine."""
