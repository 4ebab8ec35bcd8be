"""Runs a command on a terminal of 33 by 101, and plays: for each step waits for a text, then writes, resizes or waits.

on-terminal.py '[["text", "what is typed"], ["text", [rows, columns]], …]' COMMAND...
Prints what was on the terminal, then a line `status N`.
"""
import fcntl, json, os, pty, select, struct, sys, termios, time

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(command[0], command)


def resize(rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


resize(33, 101)
seen, shown, end = b"", b"", time.time() + 60
while time.time() < end:
    if select.select([fd], [], [], 0.1)[0]:
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
        shown += data
    while steps and steps[0][0].encode() in seen:
        _, what = steps.pop(0)
        # what comes next is looked for behind this
        seen = b""
        time.sleep(0.3)
        if isinstance(what, str):
            os.write(fd, what.encode())
        else:
            resize(*what)
            break
_, status = os.waitpid(pid, 0)
print(shown.decode(errors="replace"))
print("status", os.waitstatus_to_exitcode(status))
