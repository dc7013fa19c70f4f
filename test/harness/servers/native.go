package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/walpost/walpost/test/harness/kafkaembed"
	"github.com/walpost/walpost/test/harness/pgembed"
)

// Versions of the native servers.
const (
	nativePostgres    = pgembed.NewestMajor
	nativePostgresOld = pgembed.OldestMajor
	nativeKafka       = "4.3.1"
	nativeKafkaOld    = "3.9.1"
)

// oldestJava is what Kafka 4 needs.
const oldestJava = 17

// stopTimeout is how long a server may take for an orderly shutdown.
const stopTimeout = 20 * time.Second

// native runs servers as processes of this machine.
type native struct {
	java    string
	version string // of java
	logf    func(format string, args ...any)
}

func newNative(ctx context.Context, logf func(string, ...any)) (provider, error) {
	java, version, err := findJava(ctx)
	if err != nil {
		return nil, err
	}
	return &native{java: java, version: version, logf: logf}, nil
}

// findJava takes JAVA_HOME's java, else the PATH's.
func findJava(ctx context.Context) (path, version string, err error) {
	path = "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		path = filepath.Join(home, "bin", "java")
	}
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput() //nolint:gosec // the user's own java
	if err != nil {
		return "", "", fmt.Errorf("kafka needs a Java runtime of version %d or later (JAVA_HOME or PATH): %w", oldestJava, err)
	}
	found := regexp.MustCompile(`version "(\d+)[^"]*"`).FindSubmatch(out)
	if found == nil {
		return "", "", fmt.Errorf("kafka needs a Java runtime: can't read the version from %q", out)
	}
	if major, err := strconv.Atoi(string(found[1])); err != nil || major < oldestJava {
		return "", "", fmt.Errorf("kafka needs a Java runtime of version %d or later, %s is %s", oldestJava, path, found[1])
	}
	return path, string(found[1]), nil
}

func (n *native) mode() Mode { return Native }

func (n *native) describe() string {
	return fmt.Sprintf("Postgres %d and %d from plain binaries, Kafka %s and %s with java %s",
		nativePostgres, nativePostgresOld, nativeKafka, nativeKafkaOld, n.version)
}

func (n *native) close() error { return nil }

func (n *native) postgres(ctx context.Context, release Release, settings map[string]string) (*Server, error) {
	major := nativePostgres
	if release == Oldest {
		major = nativePostgresOld
	}
	return n.startPostgres(ctx, major, pgembed.Config{Settings: settings})
}

func (n *native) startPostgres(ctx context.Context, major int, config pgembed.Config) (*Server, error) {
	var err error
	if config.Bin, err = pgembed.Find(ctx, pgembed.Search{Major: major, Logf: n.logf}); err != nil {
		return nil, err
	}
	server, err := pgembed.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Server{
		Addr:    loopback(server.Port()),
		Version: strconv.Itoa(major),
		name:    namePostgres,
		run:     postgresProcess{server},
		ping:    pingPostgres,
	}, nil
}

func (n *native) kafka(ctx context.Context, release Release) (*Server, error) {
	version := nativeKafka
	if release == Oldest {
		version = nativeKafkaOld
	}
	return n.startKafka(ctx, version, kafkaembed.Config{Settings: kafkaSettings()})
}

func (n *native) startKafka(ctx context.Context, version string, config kafkaembed.Config) (*Server, error) {
	config.Java = n.java
	var err error
	if config.Libs, err = kafkaembed.Libs(ctx, pgembed.CacheDir(), version, n.logf); err != nil {
		return nil, err
	}
	broker, err := kafkaembed.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Server{Addr: broker.Addr(), Version: version, name: nameKafka, run: kafkaProcess{broker}, ping: pingKafka}, nil
}

// neighbours is a group of native servers: the machine's network is theirs.
type neighbours struct{ *native }

func (n *native) group(_ context.Context, size int) (group, []int, error) {
	ports, err := freePorts(size)
	return neighbours{n}, ports, err
}

func (n neighbours) postgres(ctx context.Context, port int, settings map[string]string, backup []byte) (*Server, error) {
	return n.startPostgres(ctx, nativePostgres, pgembed.Config{Port: port, Settings: settings, Backup: backup})
}

func (n neighbours) kafka(ctx context.Context, port int, clusterID string, settings map[string]string) (*Server, error) {
	return n.startKafka(ctx, nativeKafka, kafkaembed.Config{Port: port, ClusterID: clusterID, Heap: clusterHeap, Settings: settings})
}

func (n neighbours) listenHost() string { return "127.0.0.1" }

func (n neighbours) close(context.Context) error { return nil }

// orderly stops within stopTimeout, or kills.
func orderly(ctx context.Context, stop func(context.Context) error, kill func() error) error {
	limited, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := stop(limited)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return kill()
	}
	return err
}

type postgresProcess struct{ server *pgembed.Server }

func (p postgresProcess) start(ctx context.Context) error { return p.server.Start(ctx) }
func (p postgresProcess) stop(ctx context.Context) error {
	fast := func(ctx context.Context) error { return p.server.Stop(ctx, pgembed.Fast) }
	return orderly(ctx, fast, p.server.Kill)
}
func (p postgresProcess) kill(context.Context) error   { return p.server.Kill() }
func (p postgresProcess) pause(context.Context) error  { return p.server.Pause() }
func (p postgresProcess) resume(context.Context) error { return p.server.Resume() }
func (p postgresProcess) remove(context.Context) error { return p.server.Close() }
func (p postgresProcess) log(context.Context) string   { return p.server.Log() }
func (p postgresProcess) ended(context.Context) bool   { return isClosed(p.server.Done()) }

type kafkaProcess struct{ broker *kafkaembed.Broker }

func (k kafkaProcess) start(context.Context) error { return k.broker.Start() }
func (k kafkaProcess) stop(ctx context.Context) error {
	return orderly(ctx, k.broker.Stop, k.broker.Kill)
}
func (k kafkaProcess) kill(context.Context) error   { return k.broker.Kill() }
func (k kafkaProcess) pause(context.Context) error  { return k.broker.Pause() }
func (k kafkaProcess) resume(context.Context) error { return k.broker.Resume() }
func (k kafkaProcess) remove(context.Context) error { return k.broker.Close() }
func (k kafkaProcess) log(context.Context) string   { return k.broker.Log() }
func (k kafkaProcess) ended(context.Context) bool   { return isClosed(k.broker.Done()) }

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
