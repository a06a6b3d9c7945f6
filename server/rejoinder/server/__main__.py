from rejoinder.server.cli import main

main()
