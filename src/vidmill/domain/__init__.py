"""What is true: values, the state machine and policies. Pure: no I/O, no clock, no framework."""
