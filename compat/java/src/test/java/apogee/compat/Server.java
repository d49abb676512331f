package apogee.compat;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/**
 * One server under test, name server and broker, with a data directory of its own that outlives
 * {@link #stop} and {@link #kill}. The property {@code peer} says which: {@code apogee} (one process) or
 * {@code apache} (two). {@link DoorTest} starts one after the other on the same directory.
 */
final class Server implements AutoCloseable {
    static final String BROKER_NAME = "broker-a";

    /** Delay levels short enough for tests; level 2 is the long one. Retries use level 3 and above. */
    static final String DELAY_LEVELS = "1s 3s" + " 1s".repeat(16);

    private static final Duration START_LIMIT = Duration.ofSeconds(90);
    private static final Duration STOP_LIMIT = Duration.ofSeconds(60);
    private static final Set<Integer> TAKEN = new HashSet<>();

    private static Server shared;
    private static Throwable sharedFailure;

    private final Map<String, String> settings;
    private final Path dir;
    private final int nameServerPort;
    private final int brokerPort;
    private final List<Process> processes = new ArrayList<>();
    private DefaultMQAdminExt admin;

    private Server(Map<String, String> settings) throws IOException {
        Path parent = Path.of(System.getProperty("server.dir"));
        Files.createDirectories(parent);
        this.dir = Files.createTempDirectory(parent, "server-").toAbsolutePath();
        int block = freePorts();
        this.brokerPort = block + 2;
        this.nameServerPort = block + 5;
        this.settings = new LinkedHashMap<>();
        this.settings.put("brokerClusterName", "DefaultCluster");
        this.settings.put("brokerName", BROKER_NAME);
        this.settings.put("brokerIP1", "127.0.0.1");
        this.settings.put("messageDelayLevel", DELAY_LEVELS);
        this.settings.putAll(settings);
        this.settings.values().removeIf(String::isEmpty);
    }

    /** The server that most tests use, started by the first of them and stopped with the JVM. */
    static synchronized Server shared() {
        if (sharedFailure != null) {
            throw new IllegalStateException("the shared server did not start", sharedFailure);
        }
        if (shared == null) {
            try {
                shared = start(Map.of());
                Runtime.getRuntime().addShutdownHook(new Thread(shared::close));
            } catch (RuntimeException e) {
                sharedFailure = e;
                throw e;
            }
        }
        return shared;
    }

    /** Starts a server of its own, with these broker.conf keys on top of the common ones, or without if empty. */
    static Server start(Map<String, String> settings) {
        Server server = create(settings);
        try {
            server.start();
        } catch (RuntimeException | Error e) {
            server.close();
            throw e;
        }
        return server;
    }

    /** The same, not started yet. */
    static Server create(Map<String, String> settings) {
        try {
            return new Server(settings);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Where a server of two processes stores. */
    Path store() {
        return dir.resolve("store");
    }

    String nameServer() {
        return "127.0.0.1:" + nameServerPort;
    }

    String broker() {
        return "127.0.0.1:" + brokerPort;
    }

    int brokerPort() {
        return brokerPort;
    }

    /** An admin client of this server; it survives restarts. */
    synchronized DefaultMQAdminExt admin() {
        if (admin == null) {
            DefaultMQAdminExt client = new DefaultMQAdminExt(10_000);
            client.setNamesrvAddr(nameServer());
            client.setInstanceName("admin-" + brokerPort);
            try {
                client.start();
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
            admin = client;
        }
        return admin;
    }

    /** Starts the server on its data directory and returns when the broker is routable. */
    void start() {
        switch (System.getProperty("peer")) {
            case "apogee" -> start(this::launchApogee);
            case "apache" -> startApache(Path.of(required("apache.home")));
            default -> throw new IllegalStateException("peer is apogee or apache");
        }
    }

    /** The same with Apache's jars in this directory. */
    void startApache(Path home) {
        start(() -> launchPair((part, args) -> java(home, part, args)));
    }

    /** The same with Apogee, in the place and with the files of {@link #startApache}. */
    void startApogeeInPlaceOfApache() {
        start(() -> launchPair((part, args) -> {
            List<String> command = new ArrayList<>(List.of(required("apogee.bin"), part));
            command.addAll(List.of(args));
            return command;
        }));
    }

    private interface Launch {
        void run() throws IOException;
    }

    private void start(Launch launch) {
        if (!processes.isEmpty()) {
            throw new IllegalStateException("already running");
        }
        try {
            launch.run();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        awaitUp("a broker that the name server knows",
            () -> admin().examineBrokerClusterInfo().getBrokerAddrTable().containsKey(BROKER_NAME));
    }

    /** Asks the server to stop (SIGTERM) and waits until it has. */
    void stop() {
        List<Process> running = new ArrayList<>(processes);
        for (int i = running.size() - 1; i >= 0; i--) {
            running.get(i).destroy();
            join(running.get(i));
        }
        processes.clear();
    }

    /** kill -9. */
    void kill() {
        processes.forEach(Process::destroyForcibly);
        processes.forEach(Server::join);
        processes.clear();
    }

    @Override
    public void close() {
        synchronized (this) {
            if (admin != null) {
                admin.shutdown();
            }
        }
        kill();
        try (Stream<Path> files = Files.walk(dir)) {
            files.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** The last lines of what the server wrote. */
    String logTail() {
        StringBuilder text = new StringBuilder();
        for (String name : List.of("server.log", "logs/rocketmqlogs/broker.log")) {
            Path log = dir.resolve(name);
            if (Files.exists(log)) {
                List<String> lines = readLines(log).stream().filter(line -> !line.contains("|-INFO in")).toList();
                text.append("---- ").append(log).append('\n');
                lines.subList(Math.max(0, lines.size() - 40), lines.size())
                    .forEach(line -> text.append(line, 0, Math.min(line.length(), 300)).append('\n'));
            }
        }
        return text.toString();
    }

    private void launchApogee() throws IOException {
        Path conf = writeConf("broker.conf", settings);
        launch(List.of(required("apogee.bin"), "--data", dir.resolve("data").toString(),
            "--port", String.valueOf(nameServerPort), "--broker-port", String.valueOf(brokerPort),
            "-c", conf.toString()));
        awaitUp("a line with 'ready' on stdout",
            () -> readLines(dir.resolve("server.log")).stream().anyMatch(line -> line.contains("ready")));
    }

    /** The command line of a part, {@code namesrv} or {@code broker}. */
    private interface Program {
        List<String> command(String part, String... args);
    }

    /** Name server and broker as two processes. */
    private void launchPair(Program program) throws IOException {
        for (String name : List.of("namesrv", "broker")) { // 4.x reads these
            Path logback = dir.resolve("conf/logback_" + name + ".xml");
            Files.createDirectories(logback.getParent());
            Files.writeString(logback, """
                <configuration>
                  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
                    <encoder><pattern>%d %p %t - %m%n</pattern></encoder>
                  </appender>
                  <root level="WARN"><appender-ref ref="out"/></root>
                </configuration>
                """);
        }
        Path nameServerConf = writeConf("namesrv.conf", Map.of(
            "listenPort", String.valueOf(nameServerPort),
            "kvConfigPath", dir.resolve("kvConfig.json").toString(),
            "configStorePath", dir.resolve("namesrv.properties").toString()));
        Map<String, String> broker = new LinkedHashMap<>(Map.of(
            "brokerId", "0",
            "listenPort", String.valueOf(brokerPort),
            "haListenPort", String.valueOf(brokerPort + 1),
            "storePathRootDir", store().toString(),
            "storePathCommitLog", store().resolve("commitlog").toString(),
            "mappedFileSizeCommitLog", String.valueOf(64 << 20),
            "maxHashSlotNum", "100000",
            "maxIndexNum", "400000",
            "diskMaxUsedSpaceRatio", "95"));
        broker.putAll(settings);
        Path brokerConf = writeConf("apache-broker.conf", broker);
        launch(program.command("namesrv", "-c", nameServerConf.toString()));
        awaitUp("an open name server port", () -> isOpen(nameServerPort));
        launch(program.command("broker", "-c", brokerConf.toString(), "-n", nameServer()));
    }

    private List<String> java(Path home, String part, String... args) {
        boolean isBroker = part.equals("broker");
        List<String> command = new ArrayList<>(List.of(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            isBroker ? "-Xmx1g" : "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
            "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED", "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
            "-Duser.home=" + dir, "-Drocketmq.home.dir=" + dir, "-cp", home.resolve("lib").toAbsolutePath() + "/*",
            "org.apache.rocketmq." + part + (isBroker ? ".BrokerStartup" : ".NamesrvStartup")));
        command.addAll(List.of(args));
        return command;
    }

    private void launch(List<String> command) throws IOException {
        ProcessBuilder builder = new ProcessBuilder(command).directory(dir.toFile()).redirectErrorStream(true)
            .redirectOutput(ProcessBuilder.Redirect.appendTo(dir.resolve("server.log").toFile()));
        builder.environment().put("ROCKETMQ_HOME", dir.toString());
        builder.environment().remove("NAMESRV_ADDR");
        // A new start must not be taken for ready because of the previous one's line.
        Files.deleteIfExists(dir.resolve("server.log.old"));
        if (processes.isEmpty() && Files.exists(dir.resolve("server.log"))) {
            Files.move(dir.resolve("server.log"), dir.resolve("server.log.old"));
        }
        processes.add(builder.start());
    }

    private Path writeConf(String name, Map<String, String> conf) throws IOException {
        List<String> lines = new ArrayList<>();
        conf.forEach((key, value) -> lines.add(key + "=" + value));
        return Files.write(dir.resolve(name), lines);
    }

    private void awaitUp(String what, Condition condition) {
        long end = System.nanoTime() + START_LIMIT.toNanos();
        Exception last = null;
        while (System.nanoTime() < end) {
            try {
                if (condition.holds()) {
                    return;
                }
            } catch (Exception e) {
                last = e;
            }
            if (!processes.stream().allMatch(Process::isAlive)) {
                throw new IllegalStateException("the server ended while starting\n" + logTail());
            }
            pause();
        }
        throw new IllegalStateException("no " + what + " within " + START_LIMIT + "\n" + logTail(), last);
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void join(Process process) {
        try {
            if (!process.waitFor(STOP_LIMIT.toSeconds(), TimeUnit.SECONDS)) {
                process.destroyForcibly();
                throw new AssertionError("the server did not stop within " + STOP_LIMIT + " of SIGTERM");
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
    }

    private static void pause() {
        try {
            Thread.sleep(100);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(e);
        }
    }

    private static List<String> readLines(Path log) {
        try {
            return new String(Files.readAllBytes(log), StandardCharsets.UTF_8).lines().toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static String required(String property) {
        String value = System.getProperty(property);
        if (value == null || value.isBlank()) {
            throw new IllegalStateException("set -D" + property);
        }
        return value;
    }

    private static boolean isOpen(int port) {
        try (var socket = new java.net.Socket()) {
            socket.connect(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 1000);
            return true;
        } catch (IOException e) {
            return false;
        }
    }

    /** The first of ten free ports in a row, below the range from which the system hands out ports. */
    private static synchronized int freePorts() {
        for (int attempt = 0; attempt < 200; attempt++) {
            int block = 20_000 + 10 * ThreadLocalRandom.current().nextInt(999);
            if (!TAKEN.contains(block) && Stream.of(0, 1, 2, 3, 4, 5).allMatch(i -> isFree(block + i))) {
                TAKEN.add(block);
                return block;
            }
        }
        throw new IllegalStateException("no free ports");
    }

    private static boolean isFree(int port) {
        try (ServerSocket socket = new ServerSocket()) {
            socket.setReuseAddress(true);
            socket.bind(new InetSocketAddress(port));
            return true;
        } catch (IOException e) {
            return false;
        }
    }
}
