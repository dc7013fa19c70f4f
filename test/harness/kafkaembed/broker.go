// Package kafkaembed runs a real Apache Kafka, one broker that is its own
// controller, from its published jars with the machine's java.
//
// A broker of this package lives as long as its Broker, or the process that
// holds it, whichever ends first (on Linux), and is for tests: one copy of
// everything, nothing synced, a small heap.
package kafkaembed

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/walpost/walpost/test/harness/process"
)

// Config says what to run.
type Config struct {
	Java      string            // the java program
	Libs      string            // directory of jars, from Libs
	Settings  map[string]string // server.properties, over what one broker needs to run at all
	Port      int               // 0: a free one
	ClusterID string            // that of the others in a cluster; empty: a fresh one
	Heap      string            // -Xmx, as 256m; empty: 384m
}

// Broker is a private Kafka. Its methods are not for concurrent use.
type Broker struct {
	config     Config
	dir        *process.Dir
	port       int
	controller int
	child      *process.Child // nil: not running
}

// Start formats a fresh log directory and starts a broker on it. It returns
// when the process runs; whether it serves is for a client to find out.
func Start(ctx context.Context, config Config) (*Broker, error) {
	dir, err := process.NewDir("", "walpost-kafka-")
	if err != nil {
		return nil, err
	}
	b := &Broker{config: config, dir: dir}
	if err := b.begin(ctx); err != nil {
		return nil, errors.Join(err, dir.Remove())
	}
	return b, nil
}

func (b *Broker) begin(ctx context.Context) error {
	if err := b.identify(); err != nil {
		return err
	}
	if err := b.configure(); err != nil {
		return err
	}
	if err := b.format(ctx); err != nil {
		return err
	}
	return b.Start()
}

// identify picks what the configuration leaves open.
func (b *Broker) identify() error {
	var err1, err2, err3 error
	if b.port = b.config.Port; b.port == 0 {
		b.port, err1 = process.FreePort()
	}
	b.controller, err2 = process.FreePort()
	if b.config.ClusterID == "" {
		b.config.ClusterID, err3 = ClusterID()
	}
	if b.config.Heap == "" {
		b.config.Heap = "384m"
	}
	return errors.Join(err1, err2, err3)
}

// Addr is the broker's address, the same over restarts.
func (b *Broker) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// Log is what the broker has written so far.
func (b *Broker) Log() string {
	log, err := os.ReadFile(b.path("log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(log)
}

func (b *Broker) path(name string) string { return filepath.Join(b.dir.Path, name) }

// configure writes server.properties and the log bindings' configurations: one
// for Kafka 4 (Log4j 2), one for Kafka 3 (reload4j).
func (b *Broker) configure() error {
	controller := net.JoinHostPort("127.0.0.1", strconv.Itoa(b.controller))
	settings := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        "1",
		"controller.quorum.voters":       "1@" + controller,
		"listeners":                      "PLAINTEXT://" + b.Addr() + ",CONTROLLER://" + controller,
		"advertised.listeners":           "PLAINTEXT://" + b.Addr(),
		"controller.listener.names":      "CONTROLLER",
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                       b.path("data"),
	}
	maps.Copy(settings, b.config.Settings)
	var properties strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&properties, "%s=%s\n", name, settings[name])
	}
	return errors.Join(
		b.write("server.properties", properties.String()),
		b.write("log4j2.xml", `<Configuration status="WARN"><Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>`+
			`<Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers></Configuration>`),
		b.write("log4j.properties", "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"+
			"log4j.appender.out.layout=org.apache.log4j.PatternLayout\nlog4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n\n"))
}

func (b *Broker) write(name, content string) error {
	if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
		return fmt.Errorf("configure Kafka: %w", err)
	}
	return nil
}

// format writes the cluster's identity into the log directory.
func (b *Broker) format(ctx context.Context) error {
	cmd := b.command("-Xmx128m", "kafka.tools.StorageTool", "format", "-t", b.config.ClusterID, "-c", b.path("server.properties"))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	child, err := process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("format Kafka's log directory: %w", err)
	}
	select {
	case <-child.Done():
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("format Kafka's log directory: %w", ctx.Err()), child.End(process.Step{Signal: syscall.SIGKILL, Wait: 5 * time.Second}))
	}
	if err := child.Err(); err != nil {
		return fmt.Errorf("format Kafka's log directory: %w\n%s", err, said.String())
	}
	return nil
}

// ClusterID makes a UUID the way Kafka writes one: 16 bytes, base64url without
// padding, and not beginning with a dash, which the tool would take for a flag.
func ClusterID() (string, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("make a cluster id: %w", err)
	}
	raw[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(raw[:]), nil
}

// command runs a main class with flags that make a short-lived JVM start fast.
func (b *Broker) command(heap, class string, args ...string) *exec.Cmd {
	flags := []string{
		heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", "-Xshare:auto",
		"-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=" + b.path("log4j2.xml"),
		"-Dlog4j.configuration=file:" + b.path("log4j.properties"),
		"-cp", filepath.Join(b.config.Libs, "*"), class,
	}
	cmd := exec.Command(b.config.Java, append(flags, args...)...) //nolint:gosec // the machine's java
	cmd.Dir = b.dir.Path
	return cmd
}

// Start starts a broker that was stopped or killed, on the same address and
// data.
func (b *Broker) Start() error {
	if b.child != nil {
		return errors.New("start Kafka: it is running")
	}
	log, err := os.OpenFile(b.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start Kafka: %w", err)
	}
	defer log.Close() //nolint:errcheck // the broker has its own descriptor
	cmd := b.command("-Xmx"+b.config.Heap, "kafka.Kafka", b.path("server.properties"))
	cmd.Stdout, cmd.Stderr = log, log
	b.child, err = process.Start(cmd, syscall.SIGKILL)
	return err
}

// Done is closed when the broker that was started last has ended; nil while it
// is down.
func (b *Broker) Done() <-chan struct{} {
	if b.child == nil {
		return nil
	}
	return b.child.Done()
}

// Stop shuts the broker down cleanly. One that is down is no error.
func (b *Broker) Stop(ctx context.Context) error {
	if b.child == nil {
		return nil
	}
	if err := b.child.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop Kafka: %w", err)
	}
	select {
	case <-b.child.Done():
		b.child = nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop Kafka: %w", ctx.Err())
	}
}

// Kill ends the broker with SIGKILL. One that is down is no error.
func (b *Broker) Kill() error {
	if b.child == nil {
		return nil
	}
	if err := b.child.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill Kafka: %w", err)
	}
	<-b.child.Done()
	b.child = nil
	return nil
}

// Pause stops the process where it is, until Resume.
func (b *Broker) Pause() error { return b.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (b *Broker) Resume() error { return b.signal(syscall.SIGCONT) }

func (b *Broker) signal(sig syscall.Signal) error {
	if b.child == nil {
		return errors.New("signal Kafka: it is not running")
	}
	return b.child.Signal(sig)
}

// Close ends the broker and removes its data.
func (b *Broker) Close() error { return errors.Join(b.Kill(), b.dir.Remove()) }
