package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asOwner makes the test binary a stand-in for a parent that owns a directory
// and a child, until it is killed.
const asOwner = "WALPOST_TEST_PROCESS_OWNER"

func TestMain(m *testing.M) {
	if base := os.Getenv(asOwner); base != "" {
		own(base)
		return
	}
	goleak.VerifyTestMain(m)
}

// own tells its directory and waits to be killed.
func own(base string) {
	dir, err := NewDir(base, "owned-")
	if err != nil {
		panic(err)
	}
	child, err := Start(exec.Command("sleep", "600"), syscall.SIGKILL)
	if err != nil {
		panic(err)
	}
	fifo, err := os.OpenFile(filepath.Join(base, "ready"), os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	_, _ = fifo.WriteString(dir.Path)
	_ = fifo.Close()
	<-child.Done()
}

func TestNothingOutlivesAKilledOwner(t *testing.T) {
	base := t.TempDir()
	ready := filepath.Join(base, "ready")
	if err := syscall.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asOwner+"="+base)
	owner, err := Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.ReadFile(ready) // returns once the owner has written and closed
	if err != nil {
		t.Fatal(err)
	}
	children := descendants(owner.Pid())
	if Abandoned(string(path)) {
		t.Error("a living owner's directory counts as abandoned")
	}

	if err := owner.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-owner.Done()

	if !Abandoned(string(path)) {
		t.Error("a dead owner's directory does not count as abandoned")
	}
	other, err := NewDir(base, "owned-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(path)); !os.IsNotExist(err) {
		t.Errorf("the dead owner's directory is still there: %v", err)
	}
	if err := other.Remove(); err != nil {
		t.Error(err)
	}
	if len(children) == 0 {
		t.Fatal("the owner had no child to look for")
	}
	for _, pid := range children {
		awaitGone(t, pid)
	}
}

// awaitGone polls, for a process that isn't ours to wait for.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if !running(pid) {
			return
		}
		<-tick.C
	}
	t.Errorf("process %d is still there", pid)
}

func TestEndGoesOnToTheNextSignal(t *testing.T) {
	child := startShell(t, "trap '' INT; echo ready; while :; do sleep 600; done")
	if err := child.End(Step{syscall.SIGINT, 50 * time.Millisecond}, Step{syscall.SIGKILL, 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if code := child.ExitCode(); code != -1 {
		t.Errorf("exit code %d, want -1: ended by a signal", code)
	}
}

// startShell starts a script and waits for its first output.
func startShell(t *testing.T, script string) *Child {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child, err := Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return child
}

func TestKillTreeReachesGrandchildren(t *testing.T) {
	child := startShell(t, "sleep 600 & echo ready; wait")
	below := descendants(child.Pid())
	if len(below) == 0 {
		t.Fatal("no grandchild")
	}
	if err := child.KillTree(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	for _, pid := range below {
		if running(pid) {
			t.Errorf("process %d still runs", pid)
		}
	}
}

func TestStartOfWhatIsNotThere(t *testing.T) {
	if _, err := Start(exec.Command("/nonexistent/program"), syscall.SIGKILL); err == nil {
		t.Fatal("want an error")
	}
}
