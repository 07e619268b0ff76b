//! KEEP=1: the cluster stays, with words on what can be done with it.

use form_tests::Cluster;

use crate::screen::{say, title};

pub(crate) fn left_up(mut cluster: Cluster, mnemonic: &str) {
    let dir = cluster.scene().dir().display().to_string();
    let form = cluster.assets().form.display().to_string();
    let demo = std::env::current_exe().map_or_else(|_| "form-demo".into(), |path| path.display().to_string());
    let urls = [1, 2, 3].map(|number| format!("http://{}", cluster.node(number).options().api));
    cluster.keep();
    title(&format!("Left up in {dir}"));
    say(&format!("nodes: {}   (logs: {dir}/n1.log, n2.log, n3.log)", urls.join(", ")));
    say("try:");
    say(&format!("    export FORM_NODE={} FORM_MNEMONIC='{mnemonic}'", urls[0]));
    say(&format!("    {form} manage instances"));
    say(&format!("    {form} manage console --name demo-2      # a root shell, without a prompt; Ctrl-] leaves"));
    say(&format!("    {form} manage commit --name demo-2 --description 'what I changed'"));
    say(&format!("    {form} manage status --name demo-1"));
    say("stop it and remove everything:");
    say(&format!("    {demo} stop {dir}"));
}
