"""What every part of tipl uses: files that appear whole, locks, options, progress."""
