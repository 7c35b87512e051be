"""Methods that imitate: demonstrations, preferred responses, responses with their reward named."""
