"""Starting programs, reading what the kernel says of them, and stopping every one of them again."""

import os
import re
import signal
import socket
import subprocess
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


class Failed(Exception):
    """The run cannot give figures; the text says why."""


class Program:
    """A started program. It has its own process group, so that stopping it reaches its workers."""

    started = []

    def __init__(self, name, command, directory):
        self.name = name
        self.log_path = os.path.join(directory, f"{name}.log")
        self.port = None
        self._ready = threading.Event()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                # Proxy settings or gateway variables of the caller must not reach what is measured.
                env={"PATH": os.environ["PATH"], "HOME": directory, "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        Program.started.append(self)
        threading.Thread(target=self._read_stdout, daemon=True).start()

    def _read_stdout(self):
        with open(self.log_path, "ab") as log:
            for line in self.process.stdout:
                if self.port is None and (found := LISTENING.search(line.decode(errors="replace"))):
                    self.port = int(found[1])
                    self._ready.set()
                log.write(line)
        self._ready.set()

    def wait_for_line(self, seconds):
        """Waits for "listening on …" on stdout."""
        self._ready.wait(seconds)
        if self.port is None:
            raise Failed(f"{self.name} did not say where it listens.\n{self.log_tail()}")
        return self

    def wait_for_port(self, port, seconds):
        """Waits until the port takes connections, for a program that says nothing."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                self.port = port
                return self
            except OSError:
                time.sleep(0.01)
        raise Failed(f"{self.name} does not listen on {port}.\n{self.log_tail()}")

    def log_tail(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-20:])

    def pids(self):
        """The process and its workers."""
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            return [pid, *map(int, children.read().split())]

    def cpu_seconds(self):
        """User and system time so far, of all threads."""
        return sum(_cpu_seconds(pid) for pid in self.pids())

    def memory_mb(self, field):
        """VmRSS or VmHWM in MB of 10^6 bytes, workers added up."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/status", encoding="utf-8") as status:
                total += int(re.search(rf"^{field}:\s+(\d+) kB", status.read(), re.M)[1])
        return total * 1024 / 1e6

    def stop(self, seconds=10):
        """SIGTERM, then SIGKILL to the whole group. True if SIGTERM was enough."""
        in_time = True
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            in_time = False
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        if self in Program.started:
            Program.started.remove(self)
        return in_time

    @classmethod
    def stop_all(cls):
        for program in reversed(cls.started[:]):
            program.stop(seconds=2)


def _cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def machine_busy_seconds():
    """CPU time the whole machine has spent on anything, time taken away by the hypervisor included."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
