package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"

	"github.com/walpost/walpost/test/harness/process"
)

// ownerLabel names the private directory of the process that a container
// belongs to. Its lock tells whether that process still lives.
const ownerLabel = "walpost.test.owner"

// pullTimeout bounds the pull of one image. Without a registry in reach it
// fails at once.
const pullTimeout = 5 * time.Minute

// containers runs servers in containers of the Docker engine on this machine.
type containers struct {
	docker *client.Client
	engine string // its version
	images map[string]string
	owner  *process.Dir
}

// choices is what an image may be: the variable that names it, the public
// default, and what test/images/build.sh makes where no registry is in reach.
func choices() []imageChoice {
	return []imageChoice{
		{envPostgres, "postgres:18", "walpost-test/postgres:18"},
		{envPostgresOld, "postgres:14", "walpost-test/postgres:14"},
		{envKafka, "apache/kafka:4.3.1", "walpost-test/kafka:4.3.1"},
		{envKafkaOld, "apache/kafka:3.9.1", "walpost-test/kafka:3.9.1"},
	}
}

type imageChoice struct{ env, public, local string }

func newContainers(ctx context.Context, logf func(string, ...any)) (provider, error) {
	docker, err := client.New(client.FromEnv)
	if err != nil {
		return nil, fmt.Errorf("docker client: %w", err)
	}
	c := &containers{docker: docker, images: map[string]string{}}
	if err := c.open(ctx, logf); err != nil {
		return nil, errors.Join(err, docker.Close())
	}
	return c, nil
}

func (c *containers) open(ctx context.Context, logf func(string, ...any)) error {
	asking, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	version, err := c.docker.ServerVersion(asking, client.ServerVersionOptions{})
	if err != nil {
		return fmt.Errorf("no Docker engine answers: %w", err)
	}
	c.engine = version.Version
	for _, choice := range choices() {
		if c.images[choice.env], err = c.image(ctx, choice, logf); err != nil {
			return err
		}
	}
	if err := c.configureLibrary(); err != nil {
		return err
	}
	if c.owner, err = process.NewDir("", "walpost-containers-"); err != nil {
		return err
	}
	return c.sweep(ctx)
}

// configureLibrary replaces testcontainers' reaper, another image to pull, by
// the owner label. The host is named because the library would else look for
// a gateway where the tests themselves run in a container.
func (c *containers) configureLibrary() error {
	tclog.SetDefault(tclog.NewNoopLogger())
	return errors.Join(
		os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"),
		os.Setenv("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1"))
}

// image returns the first of the candidates that the engine has, and else pulls
// the one named by the variable or the public one.
func (c *containers) image(ctx context.Context, choice imageChoice, logf func(string, ...any)) (string, error) {
	candidates := []string{choice.public, choice.local}
	if named := os.Getenv(choice.env); named != "" {
		candidates = []string{named}
	}
	for _, name := range candidates {
		if _, err := c.docker.ImageInspect(ctx, name); err == nil {
			return name, nil
		}
	}
	name := candidates[0]
	logf("pulling %s", name)
	if err := c.pull(ctx, name); err != nil {
		return "", fmt.Errorf("pull %s: %w (%s names another image; test/images/build.sh makes one)", name, err, choice.env)
	}
	return name, nil
}

func (c *containers) pull(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	progress, err := c.docker.ImagePull(ctx, name, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	return errors.Join(progress.Wait(ctx), progress.Close())
}

// sweep removes the containers of test processes that died without doing so.
func (c *containers) sweep(ctx context.Context) error {
	list, err := c.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", ownerLabel)})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, found := range list.Items {
		if !process.Abandoned(found.Labels[ownerLabel]) {
			continue
		}
		// Another process may be removing it as well.
		_, _ = c.docker.ContainerRemove(ctx, found.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
	return nil
}

func (c *containers) mode() Mode { return Containers }

func (c *containers) describe() string {
	names := make([]string, 0, len(c.images))
	for _, choice := range choices() {
		names = append(names, c.images[choice.env])
	}
	return fmt.Sprintf("engine %s, %s", c.engine, strings.Join(names, ", "))
}

func (c *containers) close() error {
	return errors.Join(c.docker.Close(), c.owner.Remove())
}

func (c *containers) postgres(ctx context.Context, release Release, settings map[string]string) (*Server, error) {
	image := c.images[envPostgres]
	if release == Oldest {
		image = c.images[envPostgresOld]
	}
	server, err := c.run(ctx, image, 5432, func(int) []testcontainers.ContainerCustomizer {
		return append(postgresOptions(), testcontainers.WithCmd(append([]string{"postgres"}, flags(settings)...)...))
	})
	if err != nil {
		return nil, err
	}
	server.name, server.ping = namePostgres, pingPostgres
	return server, nil
}

// flags are settings on Postgres' command line.
func flags(settings map[string]string) []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

func postgresOptions() []testcontainers.ContainerCustomizer {
	return []testcontainers.ContainerCustomizer{
		testcontainers.WithEnv(map[string]string{
			"POSTGRES_USER":             Superuser,
			"POSTGRES_HOST_AUTH_METHOD": "trust",
			"POSTGRES_INITDB_ARGS":      "--no-sync --auth-host=trust", // the latter for standbys
		}),
		// SIGINT is Postgres' fast shutdown; an imported image can't say so.
		testcontainers.WithConfigModifier(func(config *container.Config) { config.StopSignal = "SIGINT" }),
	}
}

func (c *containers) kafka(ctx context.Context, release Release) (*Server, error) {
	image := c.images[envKafka]
	if release == Oldest {
		image = c.images[envKafkaOld]
	}
	server, err := c.run(ctx, image, 9092, func(port int) []testcontainers.ContainerCustomizer {
		return []testcontainers.ContainerCustomizer{testcontainers.WithEnv(kafkaEnvironment(port))}
	})
	if err != nil {
		return nil, err
	}
	server.name, server.ping = nameKafka, pingKafka
	return server, nil
}

// kafkaEnvironment is the configuration of a broker that is its own controller
// and tells its clients the port it is published on.
func kafkaEnvironment(port int) map[string]string {
	settings := kafkaSettings()
	maps.Copy(settings, map[string]string{
		"node.id":                        "1",
		"process.roles":                  "broker,controller",
		"listeners":                      "EXTERNAL://:9092,INTERNAL://:19092,CONTROLLER://:9093",
		"advertised.listeners":           fmt.Sprintf("EXTERNAL://127.0.0.1:%d,INTERNAL://localhost:19092", port),
		"inter.broker.listener.name":     "INTERNAL",
		"controller.listener.names":      "CONTROLLER",
		"listener.security.protocol.map": "EXTERNAL:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.quorum.voters":       "1@localhost:9093",
	})
	env := environment(settings)
	env["KAFKA_HEAP_OPTS"] = "-Xmx384m -Xms128m"
	return env
}

// environment is how a Kafka image takes its settings.
func environment(settings map[string]string) map[string]string {
	env := map[string]string{"KAFKA_OPTS": "-XX:TieredStopAtLevel=1"} // a short life: start fast
	for name, value := range settings {
		env["KAFKA_"+strings.ToUpper(strings.ReplaceAll(name, ".", "_"))] = value
	}
	return env
}

// run starts a container whose port is published on a fixed loopback port: the
// engine would give out another one at every start.
func (c *containers) run(ctx context.Context, image string, port int, options func(hostPort int) []testcontainers.ContainerCustomizer) (*Server, error) {
	id, ports, err := c.publishing(ctx, image, 1, func(ports []int) []testcontainers.ContainerCustomizer {
		return append(options(ports[0]), publish(map[int]int{port: ports[0]}))
	})
	if err != nil {
		return nil, err
	}
	return &Server{
		Addr:    loopback(ports[0]),
		Version: image,
		run:     inContainer{docker: c.docker, id: id},
	}, nil
}

// publishing starts a container for which it picks ports of the host. Those that
// somebody took meanwhile are replaced.
func (c *containers) publishing(ctx context.Context, image string, n int, options func(ports []int) []testcontainers.ContainerCustomizer) (id string, ports []int, err error) {
	for attempt := 1; ; attempt++ {
		ports, err = freePorts(n)
		if err != nil {
			return "", nil, err
		}
		id, err = c.create(ctx, image, options(ports)...)
		if err == nil || !portConflict(err) || attempt == 5 {
			return id, ports, err
		}
	}
}

// create starts a container that goes with this process at the latest.
func (c *containers) create(ctx context.Context, image string, options ...testcontainers.ContainerCustomizer) (id string, err error) {
	created, err := testcontainers.Run(ctx, image, append(options, testcontainers.WithLabels(map[string]string{ownerLabel: c.owner.Path}))...)
	if err == nil {
		return created.GetContainerID(), nil
	}
	if created != nil && created.GetContainerID() != "" {
		_, _ = c.docker.ContainerRemove(ctx, created.GetContainerID(), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
	return "", fmt.Errorf("run %s: %w", image, err)
}

func portConflict(err error) bool {
	return strings.Contains(err.Error(), "port is already allocated") || strings.Contains(err.Error(), "address already in use")
}

// publish maps ports of a container to ports of the host's loopback interface.
func publish(ports map[int]int) testcontainers.CustomizeRequestOption {
	return func(request *testcontainers.GenericContainerRequest) error {
		bindings := network.PortMap{}
		for port, hostPort := range ports {
			inside := network.MustParsePort(strconv.Itoa(port) + "/tcp")
			request.ExposedPorts = append(request.ExposedPorts, inside.String())
			bindings[inside] = []network.PortBinding{{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(hostPort)}}
		}
		return testcontainers.WithHostConfigModifier(func(host *container.HostConfig) { host.PortBindings = bindings })(request)
	}
}

// inContainer is a server in a container.
type inContainer struct {
	docker *client.Client
	id     string
}

func (i inContainer) start(ctx context.Context) error {
	_, err := i.docker.ContainerStart(ctx, i.id, client.ContainerStartOptions{})
	return err
}

func (i inContainer) stop(ctx context.Context) error {
	seconds := int(stopTimeout.Seconds())
	_, err := i.docker.ContainerStop(ctx, i.id, client.ContainerStopOptions{Timeout: &seconds})
	return err
}

func (i inContainer) kill(ctx context.Context) error {
	_, err := i.docker.ContainerKill(ctx, i.id, client.ContainerKillOptions{Signal: "KILL"})
	return err
}

// pause tries again where the kernel did not get every thread to stop in the
// time that the engine gives it, as on a busy machine: the engine has undone it.
func (i inContainer) pause(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		_, err := i.docker.ContainerPause(ctx, i.id, client.ContainerPauseOptions{})
		if err == nil || attempt == 10 || !strings.Contains(err.Error(), "unable to freeze") {
			return err
		}
	}
}

func (i inContainer) resume(ctx context.Context) error {
	_, err := i.docker.ContainerUnpause(ctx, i.id, client.ContainerUnpauseOptions{})
	return err
}

func (i inContainer) remove(ctx context.Context) error {
	_, err := i.docker.ContainerRemove(ctx, i.id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	return err
}

func (i inContainer) log(ctx context.Context) string {
	stream, err := i.docker.ContainerLogs(ctx, i.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return err.Error()
	}
	defer stream.Close() //nolint:errcheck // read only
	var text strings.Builder
	if _, err := stdcopy.StdCopy(&text, &text, stream); err != nil {
		return text.String() + err.Error()
	}
	return text.String()
}

func (i inContainer) ended(ctx context.Context) bool {
	found, err := i.docker.ContainerInspect(ctx, i.id, client.ContainerInspectOptions{})
	return err == nil && found.Container.State != nil && found.Container.State.Status == container.StateExited
}
