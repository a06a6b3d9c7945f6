import sys

from rejoinder.conformance.command import main

sys.exit(main(sys.argv[1:]))
