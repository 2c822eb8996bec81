"""What every command needs: arguments, messages, folders."""
