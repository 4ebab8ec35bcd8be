"""What the rig talks to in the guest: over a virtio-serial port comes one JSON object per line, a shell script
to run; back goes one with its exit status and output. Scripts run side by side, each in a session of its own,
which is killed as a whole when its time is up."""
import base64
import glob
import json
import os
import signal
import subprocess
import tempfile
import threading

NAME = 'tspod.agent'
LIMIT = 8 << 20  # bytes of one stream that are sent back

# by the kernel's name: udev's link comes later
folders = glob.glob('/sys/class/virtio-ports/*')
[folder] = [folder for folder in folders if open(folder + '/name').read().strip() == NAME]
port = os.open('/dev/' + os.path.basename(folder), os.O_RDWR | os.O_CLOEXEC)
writing = threading.Lock()


def send(message):
    line = json.dumps(message).encode() + b'\n'
    with writing:
        while line:
            line = line[os.write(port, line):]


def run(request):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(['/bin/bash', '-c', request['script']], stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=err, start_new_session=True, cwd='/root')
        late = False
        try:
            child.wait(request['seconds'])
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        answer = {'id': request['id'], 'status': child.returncode, 'late': late}
        for name, stream in (('stdout', out), ('stderr', err)):
            stream.seek(0)
            answer[name] = base64.b64encode(stream.read(LIMIT)).decode()
        send(answer)


send({'boot': open('/proc/sys/kernel/random/boot_id').read().strip()})
pending = b''
while True:
    piece = os.read(port, 65536)
    if not piece:  # nobody is at the other end yet
        threading.Event().wait(0.05)
        continue
    pending += piece
    while b'\n' in pending:
        line, pending = pending.split(b'\n', 1)
        threading.Thread(target=run, args=(json.loads(line),), daemon=True).start()
