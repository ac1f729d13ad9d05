//! The interview's room, as the mailed link opens it.

use crate::{
    browser::{Browser, Profile},
    support::*,
};

#[tokio::test]
async fn the_room_reaches_microphone_and_camera_if_the_visitor_allows_it() {
    let app = TestApp::start().await;
    app.connected(RITA).await.meet().await;
    app.mails(2).await;
    for (devices, heard) in [(true, "audio video"), (false, "NotAllowedError")] {
        let profile = Profile { devices, ..Profile::default() };
        let Some(carl) = Browser::of_mailed(&app, "carl@x.test", profile).await else { return };
        let listen = "return navigator.mediaDevices.getUserMedia({ audio: true, video: true }).then(
            (stream) => stream.getTracks().map((track) => track.kind).sort().join(' '), (fault) => fault.name)";
        assert_eq!(carl.run(listen).await, heard);
    }
}
