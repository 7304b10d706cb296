
import os
with open(os.environ["MARKS"], "a") as file:
    file.write(f"{__name__} {os.getpid()}\n")
