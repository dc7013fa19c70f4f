package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAKilledDemoLeavesNothing kills the demo where it can't say a word, and
// looks for its relay, its database and its files.
func TestAKilledDemoLeavesNothing(t *testing.T) {
	t.Parallel()
	tmp := tempDir(t)
	p := perform(t, tmp, "demo", "--duration", "1h")
	p.await(t, "RejectedEvent")
	below := descendants(t, p.child.Pid())
	if len(below) < 3 { // the relay, the postmaster, and its children
		t.Fatalf("only %d processes below the demo: %v", len(below), below)
	}

	if err := p.child.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.child.Done()

	for _, pid := range below {
		awaitGone(t, pid)
	}
	left, err := filepath.Glob(filepath.Join(tmp, "walpost-*"))
	if err != nil || len(left) == 0 {
		t.Fatalf("no directory to sweep: %v", err)
	}
	if _, code := perform(t, tmp, "demo", "--duration", "2s").end(t); code != 0 {
		t.Errorf("the next demo ends with exit code %d", code)
	}
	empty(t, tmp)
}

// TestADemoWithoutParentEnds kills what started the demo: a make, say.
func TestADemoWithoutParentEnds(t *testing.T) {
	t.Parallel()
	tmp := tempDir(t)
	p := performUnder(t, tmp, "demo", "--duration", "1h")
	p.await(t, "RejectedEvent")
	below := descendants(t, p.child.Pid())

	if err := p.child.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	shown, _ := p.end(t) // the output ends with its last writer
	if !strings.Contains(shown, "Every committed event arrived") {
		t.Errorf("no summary:\n%s", shown)
	}
	for _, pid := range below {
		awaitGone(t, pid)
	}
	empty(t, tmp)
}

// descendants lists the children of pid, their children, and so on.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	// As of proc_pid_task_children(5): complete while nobody exits.
	lists, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, list := range lists {
		children, _ := os.ReadFile(list) // a thread that has ended has none
		for field := range strings.FieldsSeq(string(children)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			all = append(append(all, child), descendants(t, child)...)
		}
	}
	return all
}

// awaitGone polls, for a process that isn't ours to wait for. One that only
// waits to be reaped is gone.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.After(endTimeout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for running(pid) {
		select {
		case <-deadline:
			t.Errorf("process %d is still there", pid)
			return
		case <-tick.C:
		}
	}
}

// running looks at the state, which follows the command's closing parenthesis.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
