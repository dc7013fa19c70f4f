package servers

import (
	"bytes"
	"context"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/testcontainers/testcontainers-go"
)

// pod is a group of containers in the network of one that does nothing else, so
// that an address means the same to all of them, and outside: a port is
// published under its own number.
type pod struct {
	*containers
	network string // id of the container that has it
}

func (c *containers) group(ctx context.Context, size int) (group, []int, error) {
	id, ports, err := c.publishing(ctx, c.images[envPostgres], size, func(ports []int) []testcontainers.ContainerCustomizer {
		published := map[int]int{}
		for _, port := range ports {
			published[port] = port
		}
		return []testcontainers.ContainerCustomizer{
			testcontainers.WithEntrypoint("tail"), testcontainers.WithCmd("-f", "/dev/null"), publish(published),
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return pod{c, id}, ports, nil
}

func (p pod) close(ctx context.Context) error { return p.server(p.network).remove(ctx) }

func (p pod) server(id string) inContainer { return inContainer{docker: p.docker, id: id} }

// restored unpacks a backup as the server's own user, once, and becomes the
// server.
const restored = `cd /var/lib/postgresql
[ -d restored ] || { mkdir -m 700 unpacking && tar -xf /tmp/backup.tar -C unpacking && mv unpacking restored; }
exec "$@"`

func (p pod) postgres(ctx context.Context, port int, settings map[string]string, backup []byte) (*Server, error) {
	image := p.images[envPostgres]
	options := append(postgresOptions(), p.joined())
	command := append([]string{"postgres", "-p", strconv.Itoa(port)}, flags(settings)...)
	if backup == nil {
		options = append(options, testcontainers.WithCmd(command...))
	} else {
		command = append(command, "-D", "restored")
		options = append(options,
			testcontainers.WithCmd(append([]string{"sh", "-euc", restored, "sh"}, command...)...),
			testcontainers.WithConfigModifier(func(config *container.Config) { config.User = "postgres" }),
			testcontainers.WithFiles(testcontainers.ContainerFile{Reader: bytes.NewReader(backup), ContainerFilePath: "/tmp/backup.tar", FileMode: 0o644}))
	}
	id, err := p.create(ctx, image, options...)
	if err != nil {
		return nil, err
	}
	return &Server{Addr: loopback(port), Version: image, name: namePostgres, run: p.server(id), ping: pingPostgres}, nil
}

func (p pod) kafka(ctx context.Context, port int, clusterID string, settings map[string]string) (*Server, error) {
	image := p.images[envKafka]
	env := environment(settings)
	env["CLUSTER_ID"] = clusterID
	env["KAFKA_HEAP_OPTS"] = "-Xmx" + clusterHeap + " -Xms64m"
	id, err := p.create(ctx, image, testcontainers.WithEnv(env), p.joined())
	if err != nil {
		return nil, err
	}
	return &Server{Addr: loopback(port), Version: image, name: nameKafka, run: p.server(id), ping: pingKafka}, nil
}

// listenHost: the engine forwards to the network's own address.
func (p pod) listenHost() string { return "0.0.0.0" }

// joined puts a container into the pod's network.
func (p pod) joined() testcontainers.CustomizeRequestOption {
	return testcontainers.WithHostConfigModifier(func(host *container.HostConfig) {
		host.NetworkMode = container.NetworkMode("container:" + p.network)
	})
}
