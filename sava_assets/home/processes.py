"""Which process is at work, as it can be noted in a file, and whether it still is."""

import os
import socket

import psutil


def this_process() -> str:
    """Machine, number and start: numbers are given again."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f}"


def lives(noted: str) -> bool:
    """Whether a noted process is there; of one on another machine nobody here can know, and it counts as gone."""
    host, number, created = noted.rsplit(" ", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(number))
        return f"{process.create_time():.2f}" == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
