package compat

import (
	"context"
	"fmt"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

const (
	brokerName = "broker-a"
	startLimit = 90 * time.Second
	stopLimit  = 60 * time.Second
	limit      = 90 * time.Second
)

// server is a name server and a broker under test with a data directory that outlives stop and kill.
// PEER=apogee (default, APOGEE_BIN) is one process, PEER=apache (APACHE_HOME) two.
type server struct {
	dir        string
	nameServer int
	broker     int
	processes  []*process
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

var shared *server

func TestMain(m *testing.M) {
	rlog.SetLogLevel("fatal")
	if level := os.Getenv("CLIENT_LOG"); level != "" {
		rlog.SetLogLevel(level)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	s, err := startServer()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.close()
	shared = s
	code := m.Run()
	if code != 0 {
		fmt.Println(s.logTail())
	}
	return code
}

func startServer() (*server, error) {
	dir, err := os.MkdirTemp("", "compat-go-")
	if err != nil {
		return nil, err
	}
	block, err := freePorts()
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, broker: block + 2, nameServer: block + 5}
	if err := s.start(); err != nil {
		err = fmt.Errorf("%w\n%s", err, s.logTail())
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *server) nameServerAddr() string { return fmt.Sprintf("127.0.0.1:%d", s.nameServer) }
func (s *server) brokerAddr() string     { return fmt.Sprintf("127.0.0.1:%d", s.broker) }
func (s *server) resolver() primitive.NsResolver {
	return primitive.NewPassthroughResolver([]string{s.nameServerAddr()})
}

// start runs the server on its data directory and returns when the broker is routable.
func (s *server) start() error {
	conf := map[string]string{
		"brokerClusterName": "DefaultCluster",
		"brokerName":        brokerName,
		"brokerIP1":         "127.0.0.1",
		"messageDelayLevel": "1s 3s" + strings.Repeat(" 1s", 16),
	}
	switch peer := os.Getenv("PEER"); peer {
	case "", "apogee":
		bin := os.Getenv("APOGEE_BIN")
		if bin == "" {
			return fmt.Errorf("set APOGEE_BIN")
		}
		if err := s.launch(bin, "--data", s.path("data"), "--port", fmt.Sprint(s.nameServer),
			"--broker-port", fmt.Sprint(s.broker), "-c", s.writeFile("broker.conf", properties(conf))); err != nil {
			return err
		}
		if err := s.awaitUp("a line with 'ready'", func() bool {
			return strings.Contains(s.readFile("server.log"), "ready")
		}); err != nil {
			return err
		}
	case "apache":
		if err := s.startApache(conf); err != nil {
			return err
		}
	default:
		return fmt.Errorf("PEER is apogee or apache, not %q", peer)
	}
	return s.awaitUp("a broker that the name server knows", s.routable)
}

func (s *server) startApache(conf map[string]string) error {
	home := os.Getenv("APACHE_HOME")
	if home == "" {
		return fmt.Errorf("set APACHE_HOME (see ../fetch-apache.sh)")
	}
	for _, name := range []string{"namesrv", "broker"} { // 4.x reads these
		s.writeFile("conf/logback_"+name+".xml", `<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d %p %t - %m%n</pattern></encoder></appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
`)
	}
	for key, value := range map[string]string{
		"brokerId":                "0",
		"listenPort":              fmt.Sprint(s.broker),
		"haListenPort":            fmt.Sprint(s.broker + 1),
		"storePathRootDir":        s.path("store"),
		"storePathCommitLog":      s.path("store/commitlog"),
		"mappedFileSizeCommitLog": fmt.Sprint(64 << 20),
		"maxHashSlotNum":          "100000",
		"maxIndexNum":             "400000",
		"diskMaxUsedSpaceRatio":   "95",
	} {
		conf[key] = value
	}
	java := func(heap, main string, args ...string) error {
		return s.launch("java", append([]string{"-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
			"--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
			"--add-exports=java.base/sun.nio.ch=ALL-UNNAMED", "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
			"-Duser.home=" + s.dir, "-Drocketmq.home.dir=" + s.dir,
			"-cp", filepath.Join(home, "lib") + "/*", main}, args...)...)
	}
	if err := java("256m", "org.apache.rocketmq.namesrv.NamesrvStartup", "-c", s.writeFile("namesrv.conf",
		properties(map[string]string{
			"listenPort":      fmt.Sprint(s.nameServer),
			"kvConfigPath":    s.path("kvConfig.json"),
			"configStorePath": s.path("namesrv.properties"),
		}))); err != nil {
		return err
	}
	if err := s.awaitUp("an open name server port", func() bool { return isOpen(s.nameServer) }); err != nil {
		return err
	}
	return java("1g", "org.apache.rocketmq.broker.BrokerStartup",
		"-c", s.writeFile("apache-broker.conf", properties(conf)), "-n", s.nameServerAddr())
}

func (s *server) routable() bool {
	if !isOpen(s.broker) {
		return false
	}
	a, err := admin.NewAdmin(admin.WithResolver(s.resolver()))
	if err != nil {
		return false
	}
	defer a.Close()
	queues, err := a.FetchPublishMessageQueues(context.Background(), "TBW102")
	return err == nil && len(queues) > 0
}

func (s *server) launch(name string, args ...string) error {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if len(s.processes) == 0 {
		flags = os.O_CREATE | os.O_WRONLY | os.O_TRUNC // the previous start's "ready" must not count
	}
	log, err := os.OpenFile(s.path("server.log"), flags, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+s.dir, "NAMESRV_ADDR=")
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	s.processes = append(s.processes, p)
	return nil
}

func (s *server) awaitUp(what string, up func() bool) error {
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if up() {
			return nil
		}
		for _, p := range s.processes {
			select {
			case <-p.done:
				return fmt.Errorf("the server ended while starting")
			default:
			}
		}
	}
	return fmt.Errorf("no %s within %v", what, startLimit)
}

// stop asks the server to stop (SIGTERM) and waits until it has.
func (s *server) stop() error {
	for i := len(s.processes) - 1; i >= 0; i-- {
		p := s.processes[i]
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(stopLimit):
			return fmt.Errorf("the server did not stop within %v of SIGTERM", stopLimit)
		}
	}
	s.processes = nil
	return nil
}

func (s *server) close() {
	for _, p := range s.processes {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	s.processes = nil
	_ = os.RemoveAll(s.dir)
}

func (s *server) logTail() string {
	var tail []string
	for _, line := range strings.Split(s.readFile("server.log"), "\n") {
		if !strings.Contains(line, "|-INFO in") {
			tail = append(tail, line)
		}
	}
	return "---- server.log\n" + strings.Join(tail[max(0, len(tail)-40):], "\n")
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *server) readFile(name string) string {
	text, _ := os.ReadFile(s.path(name))
	return string(text)
}

func (s *server) writeFile(name, text string) string {
	path := s.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		panic(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		panic(err)
	}
	return path
}

func properties(conf map[string]string) string {
	var text strings.Builder
	for key, value := range conf {
		fmt.Fprintf(&text, "%s=%s\n", key, value)
	}
	return text.String()
}

func isOpen(port int) bool {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

var (
	portsLock sync.Mutex
	taken     = map[int]bool{}
)

// freePorts returns the first of six free ports in a row, below the range from which the system hands out ports.
func freePorts() (int, error) {
	portsLock.Lock()
	defer portsLock.Unlock()
next:
	for range 200 {
		block := 20_000 + 10*rand.Intn(999)
		if taken[block] {
			continue
		}
		for port := block; port < block+6; port++ {
			listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				continue next
			}
			listener.Close()
		}
		taken[block] = true
		return block, nil
	}
	return 0, fmt.Errorf("no free ports")
}
