"""Running policies: returns, the states that they visit, statistics, films."""
