"""Operations of ``pamola-core`` run with its own data writer and with ours, and compared."""
