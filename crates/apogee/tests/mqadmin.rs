//! `mqadmin` against a server of this workspace: it says what upstream's says, word for word where
//! the words do not depend on the machine.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a real server on a real disk")]

mod raw;
mod server;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use apogee_client::{Client, Options, Outcome, Producer, PullConsumer, PushConsumer};
use server::Server;

/// What Apache RocketMQ's mqadmin 5.5.0 printed, each command after its command line.
const RECORDED: &str = include_str!("fixtures/mqadmin-5.5.0.txt");

struct Admin {
    server: Server,
    broker: String,
}

impl Admin {
    fn start(dir: &Path, port: u16) -> Self {
        let conf = "brokerName=broker-a\nbrokerIP1=127.0.0.1\n";
        Self { server: Server::start(dir, port, conf), broker: format!("127.0.0.1:{}", port + 10) }
    }

    /// Runs a command line that was recorded, against our server; standard output.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        let (code, said) = self.try_run(line);
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    }

    #[track_caller]
    fn run_in(&self, dir: &Path, line: &str) -> String {
        let (code, said) = self.try_run_in(dir, line);
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    }

    fn try_run(&self, line: &str) -> (Option<i32>, String) {
        self.try_run_in(Path::new("."), line)
    }

    fn try_run_in(&self, dir: &Path, line: &str) -> (Option<i32>, String) {
        let line = line.replace("127.0.0.2:10911", &self.broker);
        let output = Command::new(env!("CARGO_BIN_EXE_apogee"))
            .arg("mqadmin")
            .args(line.split_whitespace())
            .env("NAMESRV_ADDR", &self.server.addr)
            .current_dir(dir)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said + &String::from_utf8(output.stderr).unwrap())
    }

    /// What was recorded for a command line, with our addresses.
    #[track_caller]
    fn recorded(&self, line: &str) -> String {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let head = format!("=== mqadmin {name} -n 127.0.0.2:9876{}{rest}\n", sep(rest));
        let start = RECORDED.find(&head).unwrap_or_else(|| panic!("no {head}")) + head.len();
        let said = RECORDED[start..].split("=== mqadmin").next().unwrap();
        said.replace("127.0.0.2:9876", &self.server.addr).replace("127.0.0.2:10911", &self.broker)
    }

    /// What upstream says without a line's end at its end, we end.
    #[track_caller]
    fn says_the_same(&self, line: &str) {
        assert_eq!(self.run(line).trim_end(), self.recorded(line).trim_end(), "{line}");
    }

    /// The header of a table is the same; the rows that follow it.
    #[track_caller]
    fn table(&self, line: &str) -> Vec<String> {
        let said = self.run(line);
        let recorded = self.recorded(line);
        let (ours, theirs) = (said.lines().next().unwrap(), recorded.lines().next().unwrap());
        assert_eq!(ours, theirs, "{line}");
        said.lines().skip(1).map(str::to_owned).collect()
    }
}

fn sep(rest: &str) -> &str {
    if rest.is_empty() { "" } else { " " }
}

/// A row's shape: digits count as one, blanks as many as there are.
fn shape(row: &str) -> String {
    let mut shape = String::new();
    for char in row.chars() {
        let char = if char.is_ascii_digit() { '9' } else { char };
        if char != '9' || !shape.ends_with('9') {
            shape.push(char);
        }
    }
    shape
}

#[test]
fn topics_groups_and_configuration_are_managed_in_upstream_s_words() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 23_841);
    for line in [
        "updateTopic -c DefaultCluster -t AdminTopic -r 4 -w 4",
        "updateTopic -b 127.0.0.2:10911 -t AdminOrder -r 2 -w 2 -o true",
        "updateOrderConf -t AdminOrder -m put -v broker-a:2",
        "updateOrderConf -t AdminOrder -m get",
        "updateSubGroup -c DefaultCluster -g admin_group -s true -r 3",
        "updateKvConfig -s NS1 -k k1 -v v1",
        "deleteKvConfig -s NS1 -k k1",
        "deleteTopic -c DefaultCluster -t AdminOrder",
        "deleteSubGroup -c DefaultCluster -g admin_group",
    ] {
        admin.says_the_same(line);
    }
    let attributes = |change| format!("updateTopic -c DefaultCluster -t AdminTopic -a {change}");
    admin.run(&attributes("+message.type=FIFO"));
    admin.run(&attributes("+reserve.time=72,-message.type"));
    let (code, said) = admin.try_run(&attributes("+reserve.time=73,-message.type"));
    assert!(code == Some(1) && said.contains("does not have the attribute"), "{said}");
    admin.run("updateTopic -c DefaultCluster -t CapTopic -r 4 -w 4");
    admin.says_the_same("topicRoute -t CapTopic");
    admin.says_the_same("topicClusterList -t CapTopic");
    for line in ["wipeWritePerm -b broker-a", "addWritePerm -b broker-a"] {
        assert_eq!(shape(&admin.run(line)), shape(&admin.recorded(line)), "{line}");
    }
    admin.run("updateTopic -c DefaultCluster -t CapTopic -r 4 -w 4 -a +message.type=FIFO");
    let said = admin.run("updateTopicPerm -c DefaultCluster -t CapTopic -p 4");
    assert_eq!(said, format!("update topic perm from 6 to 4 in {} success.\n", admin.broker));
    let said = admin.run("updateTopicPerm -b 127.0.0.2:10911 -t CapTopic -p 4");
    assert_eq!(said, "new perm equals to the old one!\n");
    let said = admin.run("updateTopicPerm -b 127.0.0.2:10911 -t CapTopic -p 6");
    assert!(said.contains("from 4 to 6") && said.contains("perm=RW-"), "{said}");
    let kept = std::fs::read_to_string(dir.path().join("data/config/topics.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let kept = &kept["topicConfigTable"]["CapTopic"];
    assert_eq!(kept["attributes"], serde_json::json!({ "message.type": "FIFO" }));
    assert_eq!((&kept["perm"], &kept["readQueueNums"]), (&6.into(), &4.into()));
    let topics = admin.run("topicList");
    assert!(topics.lines().any(|topic| topic == "AdminTopic"), "{topics}");
    assert!(!topics.contains("AdminOrder"), "{topics}");
    let rows = admin.table("topicList -c");
    let row = format!("{:<20}  {:<64}  {:<64}", "DefaultCluster", "AdminTopic", "");
    assert!(rows.contains(&row), "{rows:?}");
    let queues = admin.run("allocateMQ -t CapTopic -i a,b");
    let queue = |id| format!(r#"{{"brokerName":"broker-a","queueId":{id},"topic":"CapTopic"}}"#);
    let half = |from| format!("[{},{}]", queue(from), queue(from + 1));
    assert_eq!(queues, format!(r#"{{"result":{{"a":{},"b":{}}}}}"#, half(0), half(2)) + "\n");
}

#[test]
fn topics_and_groups_are_made_by_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 24_501);
    let file = dir.path().join("list.json");
    let path = file.to_str().unwrap();
    let (topics, groups) =
        (format!("updateTopicList -f {path}"), format!("updateSubGroupList -f {path}"));
    let (code, said) = admin.try_run(&format!("{topics} -c DefaultCluster"));
    assert!(code == Some(1) && said.contains("the file path"), "{said}");

    let list = r#"[{"topicName":"ListOne","readQueueNums":2,"writeQueueNums":3,"perm":4},
                   {"topicName":"ListTwo","attributes":{"+message.type":"FIFO"}}]"#;
    std::fs::write(&file, list).unwrap();
    let done = |what: &str| {
        let addr = &admin.broker;
        format!("submit batch of {what} config to {addr} success, please check the result later.\n")
    };
    assert_eq!(admin.run(&format!("{topics} -c DefaultCluster")), done("topic"));
    let kept = std::fs::read_to_string(dir.path().join("data/config/topics.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let kept = &kept["topicConfigTable"];
    assert_eq!(
        (&kept["ListOne"]["writeQueueNums"], &kept["ListOne"]["perm"]),
        (&3.into(), &4.into())
    );
    assert_eq!(kept["ListTwo"]["readQueueNums"], 16);
    assert_eq!(kept["ListTwo"]["attributes"], serde_json::json!({ "message.type": "FIFO" }));

    std::fs::write(
        &file,
        r#"[{"groupName":"list_one","retryMaxTimes":5},{"groupName":"list_two"}]"#,
    )
    .unwrap();
    assert_eq!(admin.run(&format!("{groups} -b 127.0.0.2:10911")), done("group"));
    assert_eq!(admin.run(&format!("{groups} -c DefaultCluster")), done("subscription group"));
    let config = admin.run("getConsumerConfig -g list_one");
    assert!(config.contains("retryMaxTimes                           =  5\n"), "{config}");
    std::fs::write(&file, "[]").unwrap();
    assert_eq!(admin.run(&format!("{groups} -c DefaultCluster")), "");
}

#[test]
fn what_is_cleaned_is_what_nobody_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 24_541);
    for topic in ["Used", "Full", "Gone"] {
        admin.run(&format!("updateTopic -c DefaultCluster -t {topic} -r 1 -w 1"));
    }
    for topic in ["Used", "Full"] {
        admin.run(&format!("sendMessage -t {topic} -p hello"));
    }
    drop(admin);
    // Two topics are not configured any more; of one the log has a message.
    let config = dir.path().join("data/config/topics.json");
    let mut topics: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let table = topics["topicConfigTable"].as_object_mut().unwrap();
    assert!(table.remove("Full").is_some() && table.remove("Gone").is_some());
    std::fs::write(&config, topics.to_string()).unwrap();
    let queues = dir.path().join("data/consumequeue");
    for empty in ["Gone/0", "Used/1", "SELF_TEST_TOPIC/0", "%LMQ%light/0"] {
        std::fs::create_dir_all(queues.join(empty)).unwrap();
    }

    let admin = Admin::start(dir.path(), 24_541);
    for name in ["cleanExpiredCQ", "cleanUnusedTopic", "deleteExpiredCommitLog"] {
        for whose in [" -b 127.0.0.2:10911", " -c DefaultCluster", ""] {
            assert_eq!(admin.run(&format!("{name}{whose}")), "success\n");
        }
        let (code, said) = admin.try_run(&format!("{name} -c nothing"));
        assert!(code == Some(1) && said.contains("cluster [nothing] not exist"), "{said}");
    }
    let names = std::fs::read_dir(&queues).unwrap();
    let mut names: Vec<_> =
        names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["%LMQ%light", "Full", "SELF_TEST_TOPIC", "Used"]);
    admin.run("updateTopic -c DefaultCluster -t Full -r 1 -w 1");
    for topic in ["Used", "Full"] {
        let said = admin.run(&format!("consumeMessage -t {topic}"));
        assert!(said.contains(" BODY: hello\n"), "{said}");
    }
}

#[test]
fn what_is_configured_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 24_581);
    let exported = dir.path().join("exported");
    for topic in ["One", "%RETRY%one"] {
        admin.run(&format!("updateTopic -c DefaultCluster -t {topic} -r 2 -w 3"));
    }
    admin.run("updateSubGroup -c DefaultCluster -g one -q 2");
    admin.run("updateSubGroup -c DefaultCluster -g SELF_TEST_C_GROUP");
    let export = |line: &str, name: &str| {
        let said = admin.run(&format!("{line} -f {}", exported.display()));
        let path = exported.join(name);
        assert_eq!(said, format!("export {} success\n", path.display()));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("{\n\t\""), "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let keys =
        |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let all = export("exportMetadata -c DefaultCluster", "metadata.json");
    assert_eq!(keys(&all), ["exportTime", "subscriptionGroupTable", "topicConfigTable"]);
    assert_eq!(keys(&all["topicConfigTable"]), ["One"]);
    assert_eq!(all["topicConfigTable"]["One"]["writeQueueNums"], 3);
    assert_eq!(keys(&all["subscriptionGroupTable"]), ["one"]);
    assert_eq!(all["subscriptionGroupTable"]["one"]["retryQueueNums"], 2);
    let topics = export("exportMetadata -c DefaultCluster -t -s", "topic.json");
    assert_eq!(keys(&topics), ["exportTime", "topicConfigTable"]);
    assert_eq!(keys(&topics["topicConfigTable"]), ["%RETRY%one", "One"]);
    let groups = export("exportMetadata -b 127.0.0.2:10911 -g", "subscriptionGroup.json");
    assert_eq!(keys(&groups["subscriptionGroupTable"]), ["one"]);
    assert_eq!(admin.try_run("exportMetadata -b 127.0.0.2:10911").0, Some(1));
    let configs = export("exportConfigs -c DefaultCluster", "configs.json");
    let scale =
        serde_json::json!({ "namesrvSize": 1, "masterBrokerSize": 1, "slaveBrokerSize": 0 });
    assert_eq!(configs["clusterScale"], scale);
    let shown = &configs["brokerConfigs"]["broker-a"];
    assert_eq!(
        (&shown["fileReservedTime"], &shown["brokerName"]),
        (&"72".into(), &"broker-a".into())
    );
    assert!(keys(shown).len() <= 16, "{shown}");
    admin.run("sendMessage -t One -p hello");
    let metrics = export("exportMetrics -c DefaultCluster", "metrics.json");
    assert_eq!(keys(&metrics), ["evaluateReport", "totalData"]);
    assert_eq!(keys(&metrics["totalData"]), ["totalOneDayNum", "totalTps"]);
    assert_eq!(keys(&metrics["totalData"]["totalOneDayNum"]).len(), 4);
    let broker = &metrics["evaluateReport"]["broker-a"];
    assert_eq!(keys(broker), ["runtimeEnv", "runtimeQuota", "runtimeVersion"]);
    let quota = &broker["runtimeQuota"];
    assert_eq!((&quota["topicSize"], &quota["groupSize"]), (&1.into(), &1.into()));
    assert!(quota["tps"]["normalInTps"].is_f64(), "{quota}");
    assert_eq!(quota["tps"]["normalInTps"], metrics["totalData"]["totalTps"]["totalNormalInTps"]);
    assert_eq!(broker["runtimeVersion"]["rocketmqVersion"], "V5_5_0");
}

/// What a client says to 307, as Java writes it.
const RUNNING: &str = r#"{"mqPopTable":{},"mqTable":{
    {"brokerName":"broker-a","queueId":0,"topic":"T"}:{"cachedMsgCount":2,"commitOffset":7,
    "droped":false,"lastConsumeTimestamp":0,"lastPullTimestamp":1700000000123,"locked":false}},
    "properties":{"PROP_CONSUMEORDERLY":"false","PROP_CONSUME_TYPE":"CONSUME_PASSIVELY",
    "PROP_CONSUMER_START_TIMESTAMP":"1700000000000"},
    "statusTable":{"T":{"consumeFailedMsgs":3,"consumeOKTPS":1.5,"pullRT":0.25}},
    "subscriptionSet":[{"subString":"SUB","topic":"T"}],"userConsumerInfo":{},"jstack":"TID 1\n"}"#;

/// A member of group `g` that answers what it is asked of itself.
fn member(admin: &Admin, client: &str, tags: &'static str) {
    let mut stream = raw::connect(&admin.server);
    stream.set_read_timeout(None).unwrap();
    let body = format!(
        r#"{{"clientID":"{client}","consumerDataSet":[{{"groupName":"g",
            "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
            "subscriptionDataSet":[{{"topic":"T","subString":"*","subVersion":1}}]}}]}}"#
    );
    stream
        .write_all(&raw::frame(r#"{"code":34,"opaque":1,"version":513}"#, body.as_bytes()))
        .unwrap();
    // It is told of itself, too.
    while raw::answer(&mut stream)["code"] != 0 {}
    let serve = move || {
        while let Some(asked) = raw::next_answer(&mut stream) {
            if asked["code"] == 307 {
                let header = format!(r#"{{"code":0,"flag":1,"opaque":{}}}"#, asked["opaque"]);
                let body = RUNNING.replace("SUB", tags);
                stream.write_all(&raw::frame(&header, body.as_bytes())).unwrap();
            }
        }
    };
    std::thread::Builder::new().spawn(serve).unwrap();
}

#[test]
fn consumers_say_what_they_do() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 24_621);
    let (code, said) = admin.try_run("consumerStatus -g g");
    assert!(code == Some(1) && said.contains("not online"), "{said}");
    member(&admin, "one@1#2", "a");
    let queue = "MessageQueue [topic=T, brokerName=broker-a, queueId=0]";
    let said = admin.run_in(dir.path(), "consumerStatus -g g");
    let lines: Vec<_> = said.lines().collect();
    let recorded = admin.recorded("consumerStatus -g cap_push");
    let recorded: Vec<_> = recorded.lines().collect();
    assert_eq!((lines[0], &lines[2..7]), (recorded[0], &recorded[2..7]), "{said}");
    let row = format!("{:<10} {:<40} {:<20} ", 1, "one@1#2", "V5_5_0");
    let path = lines[1].strip_prefix(&row).unwrap();
    assert!(path.ends_with("/one@1#2"), "{said}");
    let blocked = format!("one@1#2 {queue} can't consume for a while, maybe blocked, ");
    assert!(lines[7].starts_with(&blocked) && lines.len() == 8, "{said}");
    let text = std::fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(admin.run("consumerStatus -g g -i one@1#2 -s"), text);
    for part in [
        format!("#Consumer Properties#\n{:<40}: false\n", "PROP_CONSUMEORDERLY"),
        format!(
            "\n\n\n#Consumer Subscription#\n001 Topic: {:<40} ClassFilter: false    SubEx",
            "T"
        ),
        format!("\n{:<32}  {:<32}  {:<4}  {:<20}\n", "T", "broker-a", 0, 7),
        format!("\n{:<64}  {:<32}  0     ProcessQueueInfo [commitOffset=7, ", "T", "broker-a"),
        ", cachedMsgCount=2, cachedMsgSizeInMiB=0, ".to_owned(),
        format!("\n{:<32}  {:>14} {:>14} {:>14} {:>14} ", "T", "0.25", "0.00", "0.00", "1.50"),
        "\n\n#User Consume Info#\n\n\n#Consumer jstack#\nTID 1\n".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}\n{text}");
    }
    member(&admin, "../two", "b");
    let said = admin.run_in(dir.path(), "consumerStatus -g g");
    let warned = "\n\n\nWARN: Different subscription in the same group of consumer!!!\n";
    assert!(said.ends_with(warned) && said.contains("/.._two\n"), "{said}");
    let (code, said) = admin.try_run("consumerStatus -g g -i nobody");
    assert!(code == Some(1) && said.contains("The Consumer <g> <nobody> not online"), "{said}");
}

#[test]
fn sends_are_timed() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 24_521);
    let said = admin.run("sendMsgStatus -b broker-a -s 20 -c 2");
    let queue = "MessageQueue [topic=broker-a, brokerName=broker-a, queueId=0]";
    for (row, offset) in said.lines().zip([1, 2]) {
        assert!(row.starts_with("rt="), "{said}");
        assert!(row.contains("ms, SendResult=SendResult [sendStatus=SEND_OK, msgId="), "{said}");
        let end = format!("messageQueue={queue}, queueOffset={offset}, recallHandle=null]");
        assert!(row.ends_with(&end), "{row}");
    }
    assert_eq!(said.lines().count(), 2, "{said}");
    let printed = admin.run("printMsgByQueue -t broker-a -a broker-a -i 0 -p true -d true");
    let bodies: Vec<_> =
        printed.lines().filter_map(|row| Some(row.split_once(" BODY: ")?.1)).collect();
    assert_eq!(bodies, vec!["hello jodie".repeat(2); 3]);

    let said = admin.run("checkMsgSendRT -t New -a 9 -s 10");
    let rows: Vec<_> = said.lines().collect();
    let columns = ("#Broker Name", "#QID", "#Send Result");
    assert_eq!(rows[0], format!("{:<32}  {:<4}  {:<20}    #RT", columns.0, columns.1, columns.2));
    for row in &rows[1..10] {
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!((words.len(), words[0], words[2]), (4, "broker-a", "true"), "{row}");
    }
    let average = rows[10].strip_prefix("Avg RT: ").unwrap();
    assert!(average.parse::<f64>().is_ok() && rows.len() == 11, "{said}");

    let (code, said) = admin.try_run("clusterRT -c nothing");
    assert!(code == Some(1) && said.contains("cluster [nothing] not exist"), "{said}");
    for (more, has_head) in [(&[][..], true), (&["-p", "true", "-m", "room"], false)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_apogee"))
            .args(["mqadmin", "clusterRT", "-a", "3", "-i", "1", "-n", &admin.server.addr])
            .args(more)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        if has_head {
            let head = lines.next().unwrap();
            let (cluster, broker) = ("#Cluster Name", "#Broker Name");
            let head_wanted =
                format!("{cluster:<24}  {broker:<24}  #RT   #successCount  #failCount");
            assert_eq!(head.trim_end(), head_wanted);
            let row = lines.next().unwrap();
            assert!(row.starts_with(&format!("{:<24}  {:<24}  ", "DefaultCluster", "broker-a")));
            assert!(row.ends_with(&format!("  {:<16}  {:<16}", 3, 0)), "{row}");
            assert_eq!(lines.next().unwrap(), head);
        } else {
            let row = lines.next().unwrap();
            assert!(row.contains("|room|DefaultCluster|broker-a|"), "{row}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn what_goes_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 23_861);
    let overview = admin.run("help");
    assert!(overview.starts_with("The most commonly used mqadmin commands are:\n   updateTopic"));
    let (code, said) = admin.try_run("nothing");
    assert_eq!((code, &*said), (Some(0), "The sub command nothing not exist.\n"));
    let yet = "mqadmin startMonitoring: Apogee does not have this command yet\n";
    assert_eq!(admin.try_run("startMonitoring -g g"), (Some(1), yet.to_owned()));
    assert!(admin.run("help topicStatus").starts_with("usage: mqadmin topicStatus"));
    for (line, words) in [
        ("topicStatus", "Missing required option: t\nusage: mqadmin topicStatus"),
        ("topicRoute -t nothing", "nothing"),
        ("topicStatus -t nothing", "nothing"),
        ("consumerConnection -g nobody", "not online"),
        ("updateTopic -t x", "-b or a cluster with -c"),
        ("deleteTopic -t x -c nothing", "cluster [nothing] not exist"),
        ("updateTopic -t x -c DefaultCluster -r many", "-r many"),
        ("queryMsgById -i xyz", "xyz"),
    ] {
        let (code, said) = admin.try_run(line);
        let all = said.lines().rev().collect::<Vec<_>>().join("\n") + "\n" + &said;
        assert_eq!(code, Some(1), "{line}: {said}");
        assert!(words.split('\n').all(|words| all.contains(words)), "{line}: {said}");
    }
}

#[test]
fn brokers_are_shown_as_upstream_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 23_881);
    let rows = admin.table("clusterList");
    let recorded = admin.recorded("clusterList");
    let theirs = recorded.lines().nth(1).unwrap();
    // Only the figures differ, and none of them moves what follows it.
    let is_alike = |(ours, theirs): (char, char)| {
        ours == theirs || (ours.is_ascii_digit() && theirs.is_ascii_digit())
    };
    let ours: String = rows[0].split_whitespace().collect();
    let same = ours.chars().zip(theirs.split_whitespace().flat_map(str::chars)).take(36);
    assert!(same.clone().count() == 36, "{}", rows[0]);
    let ends = |row: &str, word: &str| row.find(word).map(|at| at + word.len());
    for word in ["DefaultCluster", "broker-a", "V5_5_0", "true"] {
        assert_eq!(ends(&rows[0], word), ends(theirs, word), "{word}\n{}\n{theirs}", rows[0]);
    }
    assert!(["DefaultClusterbroker-a0"].iter().all(|it| ours.starts_with(it)));
    assert!(same.take(23).all(is_alike));
    let status = admin.run("brokerStatus -b 127.0.0.2:10911");
    assert!(status.contains("\nmsgPutTotalTodayMorning         : 0\n"), "{status}");
    admin.run("sendMessage -t Days -p hello");
    let said = admin.run("clusterList -m");
    let counts = format!("{:>14} {:>14} {:>14} {:>14}", 0, 0, 1, 0);
    let row = format!("{:<16}  {:<32} {counts}", "DefaultCluster", "broker-a");
    assert_eq!(said.lines().skip(1).collect::<Vec<_>>(), [row]);
    let status = admin.run("brokerStatus -b 127.0.0.2:10911");
    let end = status.lines().find_map(|row| row.strip_prefix("commitLogMaxOffset              : "));
    let header = format!(
        "{:<32}  {:<16} {:>16} {:>16}",
        "#SlaveAddr", "#SlaveAckOffset", "#Diff", "#TransferSpeed(KB/s)"
    );
    let ha = format!(
        "\n#MasterAddr\t{}\n#MasterCommitLogMaxOffset\t{}\n#SlaveNum\t0\n#InSyncSlaveNum\t0\n\
         {header} {:>16} {:>16}\n",
        admin.broker,
        end.unwrap(),
        "#Status",
        "#TransferFromWhere"
    );
    for whose in ["-b 127.0.0.2:10911", "-c DefaultCluster"] {
        assert_eq!(admin.run(&format!("haStatus {whose}")), ha);
    }
    assert!(status.contains("\nbootTimestamp                   : 1"), "{status}");
    let config = admin.run("getBrokerConfig -b 127.0.0.2:10911");
    let recorded = admin.recorded("getBrokerConfig -b 127.0.0.2:10911");
    assert_eq!(config.lines().next(), recorded.lines().next());
    let row = "storeReplyMessageEnable                           =  true";
    assert!(recorded.contains(row), "{recorded}");
    for row in [
        row,
        "flushDiskType                                     =  ASYNC_FLUSH",
        "mappedFileSizeCommitLog                           =  1073741824",
        "serverChannelMaxIdleTimeSeconds                   =  120",
    ] {
        assert!(config.lines().any(|line| line == row), "{row} in {config}");
    }
    let config = admin.run("getNamesrvConfig");
    let recorded = admin.recorded("getNamesrvConfig");
    assert_eq!(config.lines().next(), recorded.lines().next());
    let row = "needWaitForService                                =  false";
    assert!(config.lines().any(|line| line == row) && recorded.contains(row), "{config}");
}

#[test]
fn messages_are_found_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 23_901);
    admin.run("updateTopic -c DefaultCluster -t AdminTopic -r 1 -w 1");
    let sent = admin.table("sendMessage -t AdminTopic -p hello -k k -c t");
    let row = format!("{:<32}  {:<4}  {:<20}    ", "broker-a", "0", "SEND_OK");
    let id = sent[0].strip_prefix(&row).unwrap().to_owned();

    let printed = admin.run("printMsg -t AdminTopic -d true");
    let queue = "MessageQueue [topic=AdminTopic, brokerName=broker-a, queueId=0]";
    assert!(printed.starts_with(&format!("minOffset=0, maxOffset=1, {queue}\nMSGID: {id} Mess")));
    let recorded = admin.recorded("printMsg -t AdminTopic -d true");
    let line = |text: &str| text.lines().find(|it| it.starts_with("MSGID")).unwrap().to_owned();
    let until_id = |text: String| {
        let message = text.split_once(" MessageExt ").unwrap().1;
        shape(message.split(" msgId=").next().unwrap())
    };
    assert_eq!(until_id(line(&printed)), until_id(line(&recorded)));
    assert!(line(&printed).contains("bodyCRC=907060870, "), "{printed}");
    assert!(printed.contains("body=[104, 101, 108, 108, 111], transactionId='null'}] BODY: hello"));

    for line in [
        format!("queryMsgByUniqueKey -t AdminTopic -i {id}"),
        "queryMsgByOffset -t AdminTopic -b broker-a -i 0 -o 0".to_owned(),
    ] {
        let shown = admin.run(&line);
        assert!(shown.contains("Topic:               AdminTopic\nTags:                [t]\n"));
        assert!(shown.contains("Keys:                [k]\n"), "{shown}");
        assert!(shown.ends_with("\n\nWARN: No Consumer\n"), "{shown}");
    }
    let shown = admin.run("queryMsgByOffset -t AdminTopic -b broker-a -i 0 -o 0 -f UTF-8");
    let offset_id = shown.lines().next().unwrap().strip_prefix("OffsetID:            ").unwrap();
    assert!(shown.contains("Message Body:        hello\n"), "{shown}");
    assert!(admin.run(&format!("queryMsgById -i {offset_id}")).contains(offset_id));
    consumed_and_counted(&admin, &id);
    let by_key = admin.run("queryMsgByKey -t AdminTopic -k k");
    let recorded = admin.recorded("queryMsgByKey -t CapTopic -k key3");
    assert_eq!(by_key.lines().next(), recorded.lines().next());
    assert!(by_key.contains(&format!("@AdminTopic@K@k@{id}@")), "{by_key}");
}

/// Of topic `AdminTopic`, where one queue has one message.
fn consumed_and_counted(admin: &Admin, id: &str) {
    let queue = "MessageQueue [topic=AdminTopic, brokerName=broker-a, queueId=0]";
    let end = format!("{queue} print msg finished. status=NO_NEW_MSG, offset=1");
    for more in ["", " -c 128", " -b broker-a -i 0 -o 0"] {
        let said = admin.run(&format!("consumeMessage -t AdminTopic{more}"));
        let rows: Vec<_> = said.lines().collect();
        assert_eq!(rows[0], "Consume ok", "{said}");
        assert!(rows[1].starts_with(&format!("MSGID: {id} MessageExt [brokerName=broker-a, ")));
        assert!(rows[1].ends_with(" BODY: hello"), "{said}");
        assert_eq!((rows[2], rows.len()), (&*end, 3), "{said}");
    }
    let said = admin.run("consumeMessage -t AdminTopic -b broker-a -i 0 -o 2");
    assert_eq!(said, format!("{queue} no matched msg, offset=2\n"));
    admin.run("sendMessage -t AdminTopic -p more -c other");
    admin.run("sendMessage -t AdminTopic -p more -c other");
    let said = admin.run("consumeMessage -t AdminTopic -c 2");
    let older = "The older 2 message of the 0 queue will be provided\nConsume ok\nMSGID: ";
    assert!(said.starts_with(older), "{said}");
    assert_eq!(said.matches(" BODY: ").count(), 2, "{said}");
    for (more, words) in [
        ("-c 0", "Please input a positive messageNumber!"),
        ("-i 0", "Please set the brokerName before queueId!"),
        ("-o 0", "Please set queueId before offset!"),
        ("-s 9999999999999", "Please set the beginTimestamp before now!"),
        ("-s 2 -e 1", "less than or equal to the endTimestamp"),
    ] {
        let (code, said) = admin.try_run(&format!("consumeMessage -t AdminTopic {more}"));
        assert!(code == Some(1) && said.contains(words), "{more}: {said}");
    }

    let by_queue = "printMsgByQueue -t AdminTopic -a broker-a -i 0";
    assert_eq!(admin.run(by_queue), "");
    let counted = format!("Tag: {:<30} Count: 2\nTag: {:<30} Count: 1\n", "other", "t");
    assert_eq!(admin.run(&format!("{by_queue} -f true")), counted);
    let said = admin.run("queryCq -b 127.0.0.2:10911 -t AdminTopic -q 0 -i 0 -c 3");
    let recorded = admin.recorded("queryCq -b 127.0.0.2:10911 -t CapTopic -q 0 -i 0 -c 3");
    assert_eq!(shape(&said).replace("=-", "="), shape(&recorded), "{said}");
    assert!(
        said.starts_with("Queue data: \nmax: 3, min: 0\n=====") && said.contains("tagsCode=116,")
    );
    let from_one = admin.run("queryCq -t AdminTopic -q 0 -i 1");
    assert_eq!(from_one.matches("\nidx: ").collect::<Vec<_>>().len(), 2, "{from_one}");
    assert!(said.ends_with(&from_one[from_one.find("idx: 1").unwrap()..]), "{from_one}");
    for (words, line) in [
        ("Index 3 of 0@AdminTopic is not exist!", "queryCq -t AdminTopic -q 0 -i 3"),
        ("1@AdminTopic is not exist!", "queryCq -t AdminTopic -q 1 -i 0"),
    ] {
        let (code, said) = admin.try_run(line);
        assert!(code == Some(1) && said.contains(words), "{said}");
    }
    let said = admin.run(&format!("{by_queue} -p true -s t"));
    assert!(said.starts_with(&format!("MSGID: {id} ")) && said.ends_with("BODY: NOT PRINT BODY\n"));
}

/// Of topic `AdminTopic`, where group `cap_push` has read two messages.
fn queues_are_shown(admin: &Admin) {
    let rows = admin.table("brokerConsumeStats -b 127.0.0.2:10911");
    let place = format!("{:<64}  {:<64}  {:<32}  {:<4}", "AdminTopic", "cap_push", "broker-a", 0);
    let row = format!("{place}  {:<20}  {:<20}  {:<20}  20", 2, 2, 0);
    assert!(rows[0].starts_with(&row), "{rows:?}");
    assert_eq!(rows[1..], ["", "Diff Total: 0"]);
    for more in ["-l 1", "-o true"] {
        let said = admin.run(&format!("brokerConsumeStats -b 127.0.0.2:10911 {more}"));
        assert_eq!(said.lines().count(), 3, "{said}");
    }
    let said = admin.run("queryCq -t AdminTopic -q 0 -i 0 -c 1 -g cap_push");
    assert!(said.starts_with("Subscription data: \n{\n\t"), "{said}");
    assert!(said.contains("\n\t\"topic\":\"AdminTopic\""), "{said}");
    assert!(said.contains("\nFilter data: \nnull\n====="), "{said}");
    let said = admin.run("queryCq -t AdminTopic -q 0 -i 0 -c 1 -g nobody");
    assert!(said.starts_with("Filter data: \nnobody@AdminTopic is not online!\n====="), "{said}");
}

/// When there is one more, which the group has not read.
fn topics_are_counted(admin: &Admin) {
    let rows = admin.table("statsAll -a");
    assert!(rows.len() == 1 && rows[0].starts_with("AdminTopic "), "{rows:?}");
    let said = admin.run("statsAll -t AdminTopic");
    let rates = format!("{:>12} {:>11} {:>11} {:>14} {:>14}", 1, "0.05", "0.00", 3, 0);
    let row = format!("{:<64}  {:<64} {rates}", "AdminTopic", "cap_push");
    assert_eq!(said.lines().skip(1).collect::<Vec<_>>(), [row]);
    let said = admin.run("statsAll -t BenchmarkTest");
    assert!(said.ends_with(" NO_CONSUMER\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn producers_and_consumers_are_shown_and_moved() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin::start(dir.path(), 23_921);
    admin.run("updateTopic -c DefaultCluster -t AdminTopic -r 1 -w 1");
    admin.run("sendMessage -t AdminTopic -p hello -k k -c t");
    let client = Client::new(Options::new(&admin.server.addr));
    // The producer's first heartbeat goes to the brokers that are known.
    client.route("AdminTopic").await.unwrap();
    let producer =
        Producer::builder("").client(client.clone()).group("cap_producer").start().await.unwrap();
    producer.send(apogee_client::Message::new("AdminTopic", "x")).await.unwrap();
    let consumer = PushConsumer::builder("", "cap_push")
        .client(client.clone())
        .subscribe("AdminTopic", "*")
        .start(|_| std::future::ready(Outcome::Done))
        .await
        .unwrap();
    // Consumers commit every five seconds.
    let has_row = || admin.run("consumerProgress -g cap_push").contains("\nAdminTopic ");
    let mut tries = 0;
    while !has_row() && tries < 40 {
        tries += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let connected = admin.table("consumerConnection -g cap_push");
    assert!(connected.contains(&"ConsumeType: CONSUME_PASSIVELY".to_owned()), "{connected:?}");
    let rows = admin.table("consumerProgress -g cap_push");
    assert!(rows.iter().any(|row| row.starts_with("AdminTopic ")), "{rows:?}");
    assert!(rows.contains(&"Consume Inflight Total: 0".to_owned()), "{rows:?}");
    let rows = admin.table("consumerProgress");
    let group = format!("{:<64}  {:<6}  V", "cap_push", "1");
    assert!(rows.iter().any(|row| row.starts_with(&group)), "{rows:?}");
    let producers = admin.run("producerConnection -g cap_producer -t AdminTopic");
    assert!(producers.starts_with("0001  "), "{producers}");
    let all = admin.run("producer -b 127.0.0.2:10911");
    let instance = "producer group (cap_producer) instance : clientId=";
    let row = all.lines().find(|row| row.starts_with(instance)).unwrap();
    assert!(row.contains(",remoteIP=/127.0.0.1:"), "{all}");
    assert!(row.contains(", language=JAVA, version=513, lastUpdateTimestamp=1"), "{all}");
    queues_are_shown(&admin);
    let said = admin.run("resetOffsetByTime -g cap_push -t AdminTopic -s -1");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].ends_with("timestamp(string)[-1], timestamp(long)[-1]"), "{said}");
    assert_eq!(lines[2], format!("{:<40}  {:<40}  {:<40}", "broker-a", 0, 2));
    consumer.shutdown().await;
    admin.run("sendMessage -t AdminTopic -p more");
    topics_are_counted(&admin);
    let said = admin.run("skipAccumulatedMessage -g cap_push -t AdminTopic");
    let row = format!("{:<40}  {:<40}  {:<40}", "broker-a", 0, 3);
    assert_eq!(said.lines().skip(1).collect::<Vec<_>>(), [row]);
    admin.says_the_same("getConsumerConfig -g cap_push");
    admin.run("updateSubGroup -c DefaultCluster -g other");
    let said = admin.run("cloneGroupOffset -s cap_push -d other -t AdminTopic");
    let words =
        "clone group offset success. srcGroup[cap_push], destGroup=[other], topic[AdminTopic]\n";
    assert_eq!(said, words);
    let queue = client.route("AdminTopic").await.unwrap().read_queues().remove(0);
    let other = PullConsumer::with(client.clone(), "other").unwrap();
    assert_eq!(other.committed(&queue).await.unwrap(), Some(3));
    producer.shutdown().await;
}
